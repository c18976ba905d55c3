#!/usr/bin/env python3
"""Writes tests/quant/golden_gguf_blocks.json: blocks as the reference package `gguf` (PyPI, `pip install gguf`) dequantizes them and,
where it can, quantizes them. Floats are hexadecimal bits, so the comparison is exact.

usage: tools/golden_gguf_blocks.py > tests/quant/golden_gguf_blocks.json
"""
import json

import numpy as np
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

BLOCK = 32


def bits(x):
    return "".join(f"{v:08x}" for v in np.ascontiguousarray(x, np.float32).view(np.uint32).ravel())


def inputs(rng):
    rows = [rng.normal(0, s, BLOCK) for s in (1, 0.02, 300)]
    rows += [rng.uniform(2, 3, BLOCK), rng.uniform(-5, -4, BLOCK), np.zeros(BLOCK), np.full(BLOCK, 0.37)]
    one = np.zeros(BLOCK)
    one[17] = -8.5
    return np.stack(rows + [one]).astype(np.float32)


def random_blocks(rng, size, halves_at, count=6):
    """Any codes under any scale that is a finite half: what a file may hold."""
    blocks = rng.integers(0, 256, (count, size), np.uint8)
    for at in halves_at:
        halves = rng.normal(0, 1, count).astype(np.float16)
        halves[0], halves[1] = np.float16(6e-8), np.float16(-65504)  # a subnormal and the largest
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(count, 2)
    return blocks


def stored(kind, blocks):
    return {
        "stored": [row.tobytes().hex() for row in blocks],
        "stored_values": [bits(row) for row in dequantize(blocks, kind)],
    }


def main():
    rng = np.random.default_rng(7)
    out = {}
    both = ((Type.Q8_0, 34, 1), (Type.Q4_0, 18, 1), (Type.Q4_1, 20, 2), (Type.Q5_0, 22, 1), (Type.Q5_1, 24, 2))
    for kind, size, halves in both:
        x = inputs(rng)
        quantized = quantize(x, kind)
        blocks = random_blocks(rng, size, range(0, 2 * halves, 2))
        out[kind.name.lower()] = {
            "values": [bits(row) for row in x],
            "quantized": [row.tobytes().hex() for row in quantized],
            "dequantized": [bits(row) for row in dequantize(quantized, kind)],
            **stored(kind, blocks),
        }
    only_read = (
        (Type.IQ4_NL, 18, (0,)),
        (Type.IQ4_XS, 136, (0,)),
        (Type.Q2_K, 84, (80, 82)),
        (Type.Q3_K, 110, (108,)),
        (Type.Q4_K, 144, (0, 2)),
        (Type.Q5_K, 176, (0, 2)),
        (Type.Q6_K, 210, (208,)),
    )
    for kind, size, halves_at in only_read:
        out[kind.name.lower()] = stored(kind, random_blocks(rng, size, halves_at, 3))
    mxfp4 = random_blocks(rng, 17, (), 8)
    mxfp4[:, 0] = (0, 1, 2, 118, 127, 140, 250, 255)  # exponents: the smallest two are subnormal scales
    out["mxfp4"] = stored(Type.MXFP4, mxfp4)
    print(json.dumps(out, indent=1))


main()
