#!/usr/bin/env python3
"""Fails if machine code writes to a register that a tensor-core operation in flight still reads.

wgmma with its first operand in registers runs on while the program goes on. ptxas (13.0 and others) can move a write to
those registers ahead of the wait for the operation, and results are then wrong without a word. Our kernels wait for all
operations before they make the next fragment; this reads what became of it:

    tools/check_sass.py OBJECT...        objects, libraries or programs with device code; needs cuobjdump

A register of a *GMMA's operand is in flight until a WARPGROUP.DEPBAR that leaves no group open. Until then nothing may
write to it, and no branch may go back. Waits between the operations of one group (ptxas serialised them) fail as well.
"""
import re
import subprocess
import sys

GMMA = re.compile(r"\b[A-Z]+GMMA\.\S+\s+R\d+, R(\d+), gdesc")
WAIT = re.compile(r"WARPGROUP\.DEPBAR\.LE gsb0, (0x[0-9a-f]+)")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\d+ )?([A-Z0-9.]+)\s*(.*?)\s*;")
BRANCH = re.compile(r"\bBRA(?:\.\w+)*\s+(?:\w+, )?(?:`\(|)(0x[0-9a-f]+)")
# The first register of these is read, not written.
STORES = ("ST", "RED", "BAR", "WARPGROUP", "SYNCS", "UTMA", "LDGSTS", "ATOMG.RED")


def written(op: str, operands: str) -> set:
    """Registers that an instruction writes: its first operand, as wide as its name says."""
    first = re.match(r"(?:P\d, |PT, )*R(\d+)", operands)
    if not first or op.startswith(STORES):
        return set()
    wide = 4 if ".128" in op or ".M88.4" in op else 2 if ".64" in op or ".WIDE" in op or ".M88.2" in op else 1
    return {int(first[1]) + i for i in range(wide)}


def check(sass: str, name: str) -> tuple:
    """Errors, and how many operations with a register operand were seen."""
    errors, seen, function, flying, open_group = [], 0, "", set(), False
    for line in sass.splitlines():
        if "Function :" in line:
            function, flying, open_group = line.split("Function :")[1].strip(), set(), False
        match = INSTRUCTION.search(line)
        if not match:
            continue
        at, op, operands = match.groups()
        text = f"{name}: {function}: {op} {operands} at 0x{at}"
        if gmma := GMMA.search(line):
            seen += 1
            flying |= {int(gmma[1]) + i for i in range(4)}
            open_group = "gsb0" not in line  # the last of a group has it
        elif wait := WAIT.search(line):
            if open_group:
                errors.append(f"{text}: waits in the middle of a group of tensor-core operations")
            if int(wait[1], 16) == 0:
                flying.clear()
            open_group = False
        elif flying:
            if hit := written(op, operands) & flying:
                errors.append(f"{text}: writes R{min(hit)}, which a tensor-core operation in flight reads")
            back = BRANCH.search(line)
            if back and int(back[1], 16) < int(at, 16):
                errors.append(f"{text}: goes back while tensor-core operations are in flight")
    return errors, seen


def main() -> int:
    errors, seen = [], 0
    for path in sys.argv[1:]:
        sass = subprocess.run(["cuobjdump", "-sass", path], check=True, capture_output=True, text=True).stdout
        found, count = check(sass, path)
        errors += found
        seen += count
    print("\n".join(errors + [f"{seen} tensor-core operations with operands in registers, {len(errors)} errors"]))
    if seen == 0:
        print("nothing was checked: is there code for 9.0a?")
    return 1 if errors or seen == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
