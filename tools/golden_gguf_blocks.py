#!/usr/bin/env python3
"""Writes tests/quant/golden_gguf_blocks.json: blocks of Q8_0, Q4_0 and Q4_1 as the reference package `gguf` (PyPI, `pip install
gguf`) quantizes and dequantizes them. Floats are hexadecimal bits, so the comparison is exact.

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


def random_blocks(rng, kind, size):
    """Any codes under any scale that is a finite half: what a file may hold."""
    blocks = rng.integers(0, 256, (6, size), np.uint8)
    for field in range(2 if kind is Type.Q4_1 else 1):
        halves = rng.normal(0, 1, 6).astype(np.float16)
        halves[0], halves[1] = np.float16(6e-8), np.float16(-65504)  # a subnormal and the largest
        blocks[:, 2 * field : 2 * field + 2] = halves.view(np.uint8).reshape(6, 2)
    return blocks


def main():
    rng = np.random.default_rng(7)
    out = {}
    for kind, size in ((Type.Q8_0, 34), (Type.Q4_0, 18), (Type.Q4_1, 20)):
        x = inputs(rng)
        quantized = quantize(x, kind)
        stored = random_blocks(rng, kind, size)
        out[kind.name.lower()] = {
            "values": [bits(row) for row in x],
            "quantized": [row.tobytes().hex() for row in quantized],
            "dequantized": [bits(row) for row in dequantize(quantized, kind)],
            "stored": [row.tobytes().hex() for row in stored],
            "stored_values": [bits(row) for row in dequantize(stored, kind)],
        }
    print(json.dumps(out, indent=1))


main()
