#!/usr/bin/env python3
"""Writes tests/models/golden_cut.json: what the first two layers of the default model say, computed in float64 with NumPy.

    pip install numpy gguf
    tools/golden_cut.py SmolLM2-135M-Instruct.Q4_1.gguf tests/models/golden_cut.json

The embedding, two layers, the last norm and the head: no model anyone would use, but every part of one, small enough for tests
under the sanitizers. For each position of a text: the negative log-probability of the token that follows, and the likeliest one.
"""
import json
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

LAYERS = 2
TOKENS = [504, 5793, 282, 4649, 314, 7042, 30, 657, 314, 253, 2240, 282, 260, 905, 28, 284, 357, 553, 325, 1343, 30, 198]


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def main():
    reader = GGUFReader(sys.argv[1])
    field = lambda key: reader.fields["llama." + key].contents()
    tensors = {t.name: t for t in reader.tensors}
    weight = lambda name: dequantize(tensors[name].data, tensors[name].tensor_type).astype(np.float64)
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    dim, eps = field("embedding_length") // heads, field("attention.layer_norm_rms_epsilon")
    theta = field("rope.freq_base")
    embedding = weight("token_embd.weight")
    x = embedding[TOKENS]
    angles = np.outer(np.arange(len(TOKENS)), theta ** (-np.arange(0, dim, 2) / dim))  # (T, C / 2)

    def rope(v):  # (T, heads, C); the file's rows are in pairs of neighbours
        even, odd = v[..., 0::2], v[..., 1::2]
        cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
        return np.concatenate([even * cos - odd * sin, even * sin + odd * cos], axis=-1)

    for layer in range(LAYERS):
        w = lambda name: weight(f"blk.{layer}.{name}.weight")
        h = rms_norm(x, w("attn_norm"), eps)
        q = rope((h @ w("attn_q").T).reshape(len(TOKENS), heads, dim))
        k = rope((h @ w("attn_k").T).reshape(len(TOKENS), kv_heads, dim))
        v = (h @ w("attn_v").T).reshape(len(TOKENS), kv_heads, dim)
        k, v = (np.repeat(t, heads // kv_heads, axis=1) for t in (k, v))
        scores = np.einsum("ihc,jhc->hij", q, k) / np.sqrt(dim)
        scores[:, np.triu(np.ones((len(TOKENS), len(TOKENS)), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hij,jhc->ihc", p, v).reshape(len(TOKENS), -1) @ w("attn_output").T
        h = rms_norm(x, w("ffn_norm"), eps)
        gate = h @ w("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up").T)) @ w("ffn_down").T
    h = rms_norm(x, weight("output_norm.weight"), eps)
    logits = h @ embedding.T
    top = logits.max(axis=-1)
    norm = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    nll = [float(norm[i] - logits[i, TOKENS[i + 1]]) for i in range(len(TOKENS) - 1)]
    second = np.sort(logits, axis=-1)[:, -2]
    # Largest sum |h| |w| of a logit: what its rounding is relative to.
    magnitude = float((np.abs(h) @ np.abs(embedding).T).max())
    with open(sys.argv[2], "w") as out:
        json.dump({"layers": LAYERS, "tokens": TOKENS, "nll": [round(v, 9) for v in nll],
                   "likeliest": [int(i) for i in logits.argmax(axis=-1)], "margin": [float(f"{m:.3g}") for m in top - second],
                   "magnitude": float(f"{magnitude:.4g}")}, out)
        out.write("\n")


main()
