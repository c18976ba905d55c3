#!/usr/bin/env python3
"""Writes a model as GPTQ, AWQ, QServe, QuaRot, SpQR and QuIP# writers would, to be read by Quire.

    make_reference_checkpoints.py --model DIR|FILE.gguf --out DIR [METHOD...]
    make_reference_checkpoints.py --golden FILE.json

Each METHOD (all without one: see METHODS) becomes the directory OUT/METHOD. --golden writes one small matrix of each GPTQ and AWQ
kind with a hash of what its own package makes of it: test data of tests/models/hf_gptq_test.cpp.

Packed by their own packages, from the sources in --packages DIR (sdists of auto-gptq 0.7.1 and autoawq 0.2.9, unpacked; their
modules are imported one by one, because the packages as a whole ask for a GPU): GPTQ version 1 and AWQ. Packed here, from the
description of the layouts, for want of a package that runs without a GPU: GPTQ version 2 (version 1 with other zeros), QServe,
QuaRot, SpQR, QuIP# (with the Hadamard matrices that Paley's constructions give, which are the library's). Codes are found by
rounding to the nearest, with the least and largest weight of each group: accuracy is not the point, the files are. Needs torch,
transformers, safetensors, and gguf for GGUF files.
"""
import argparse
import glob
import importlib
import itertools
import json
import os
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

LAYER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj")


def module_of(packages, name):
    """A module of an unpacked sdist without its package's __init__."""
    package = name.split(".")[0]
    found = glob.glob(os.path.join(packages, "auto*", package))
    if not found:
        raise SystemExit(f"{package} is not in {packages}: unpack its sdist there")
    at, parts = found[0], name.split(".")
    for i in range(1, len(parts)):
        parent = ".".join(parts[:i])
        if parent not in sys.modules:
            sys.modules[parent] = types.ModuleType(parent)
            sys.modules[parent].__path__ = [os.path.join(at, *parts[1:i])]
    return importlib.import_module(name)


def ranges(w, bits, group, symmetric):
    """Scales (f16) and zeros of (rows, groups)."""
    g = w.reshape(w.shape[0], -1, group)
    most = 2 ** bits - 1
    if symmetric:
        scale = 2 * g.abs().amax(2) / most
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = g.amin(2).clamp(max=0), g.amax(2).clamp(min=0)
        scale = (high - low) / most
        zero = None
    scale = scale.clamp(min=1e-6).half().float()
    if zero is None:
        zero = torch.round(-low / scale).clamp(0, most)
    return scale, zero


def linear_of(w):
    linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    linear.weight.data = w
    return linear


def pack_stream(codes, bits):
    """(n, ...) codes as words along the first axis, lowest bits first."""
    n = codes.shape[0]
    flat = codes.reshape(n, -1).numpy().astype(np.uint8)
    stream = np.unpackbits(flat.T[:, :, None], axis=2, bitorder="little")[:, :, :bits].reshape(flat.shape[1], n * bits)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    words = np.packbits(stream, axis=1, bitorder="little").view("<i4")
    return torch.from_numpy(words.T.copy()).reshape((-1,) + tuple(codes.shape[1:]))


def gptq(w, options, bits=4, group=64, symmetric=False, version=1, act_order=False):
    group = w.shape[1] if group == -1 else group
    # Any order will do, the same for all matrices that read one x, as one of its Hessian is.
    chance = torch.Generator().manual_seed(w.shape[1])
    order = torch.randperm(w.shape[1], generator=chance) if act_order else torch.arange(w.shape[1])
    scale, zero = ranges(w[:, order], bits, group, symmetric)
    if version == 1 and not symmetric:
        zero = zero.clamp(min=1)  # what version 1 can store
    g_idx = torch.empty(w.shape[1], dtype=torch.int32)
    g_idx[order] = torch.arange(w.shape[1], dtype=torch.int32) // group
    module = module_of(options.packages, "auto_gptq.nn_modules.qlinear.qlinear_cuda")
    layer = module.QuantLinear(bits, group, w.shape[1], w.shape[0], bias=False)
    s, z = scale[:, g_idx.long()], zero[:, g_idx.long()]
    codes = torch.round(w / s + z).clamp(0, 2 ** bits - 1)
    layer.pack(linear_of(s * (codes - z)), scale, zero.clone(), g_idx)  # it packs what was rounded before
    tensors = {"qweight": layer.qweight, "qzeros": layer.qzeros, "scales": layer.scales.half(), "g_idx": g_idx}
    if version == 2:
        tensors["qzeros"] = pack_stream(zero.int(), bits).T.contiguous()
    values = s.half() * (codes - z).half()  # as its own forward does: f16 scales times integers
    return tensors, values


def gptq_config(bits=4, group=64, symmetric=False, version=1, act_order=False):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "sym": symmetric,
            "checkpoint_format": "gptq" if version == 1 else "gptq_v2"}


def awq(w, options, version="gemm", group=64):
    scale, zero = ranges(w, 4, group, False)
    s, z = scale.repeat_interleave(group, 1), zero.repeat_interleave(group, 1)
    codes = torch.round(w / s + z).clamp(0, 15)
    module = module_of(options.packages, "awq.modules.linear." + version)
    name = {"gemm": "WQLinear_GEMM", "gemv": "WQLinear_GEMV"}[version]
    by_group = version == "gemm"
    layer = getattr(module, name).from_linear(linear_of(s * (codes - z)), 4, group, scales=scale.T if by_group else scale,
                                              zeros=zero.T if by_group else zero)
    tensors = {"qweight": layer.qweight, "qzeros": layer.qzeros, "scales": layer.scales.half()}
    if by_group:
        values = module.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales, 4, group).T
    else:
        values = s.half() * (codes - z).half()
    return tensors, values


def awq_config(version="gemm", group=64):
    return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": version}


def tiles(codes):
    o, i = codes.shape
    t = codes.reshape(o // 32, 2, 2, 8, i // 32, 2, 4, 4).to(torch.uint8)  # a b l, d e f
    t = t.permute(0, 4, 3, 6, 5, 2, 7, 1)  # tile rows, tile columns, l e d b f, a
    return (t[..., 0] | t[..., 1] << 4).contiguous().view(torch.int8).reshape(o, i // 2)


def qserve(w, _options, group=-1):
    if group == -1:
        scale, zero = ranges(w, 4, w.shape[1], False)
        codes = torch.round(w / scale + zero).clamp(0, 15)
        szero = (scale * zero).half()
        tensors = {"qweight": tiles(codes), "s1_scales": scale[:, 0].half(), "s1_szeros": szero[:, 0]}
        return tensors, (scale * codes - szero.float()).half()
    s1 = (w.abs().amax(1, keepdim=True) / 119).half()
    q8 = torch.round(w / s1.float()).clamp(-119, 119)
    g = q8.reshape(w.shape[0], -1, group)
    low, high = g.amin(2).clamp(max=0), g.amax(2).clamp(min=0)
    s2 = torch.round((high - low) / 15).clamp(min=1)
    zero = torch.round(-low / s2).clamp(0, 15)
    codes = torch.round(g / s2[..., None] + zero[..., None]).clamp(0, 15)
    values = s1.float() * ((codes - zero[..., None]) * s2[..., None]).reshape(w.shape)

    def ordered(t):  # (rows, groups): outputs of each 32 as 0, 8, 16, 24, 1, ...
        return t.T.reshape(-1, w.shape[0] // 32, 4, 8).transpose(2, 3).reshape(-1, w.shape[0])

    tensors = {"qweight": tiles(codes.reshape(w.shape)), "s1_scales": s1[:, 0], "s2_scales": ordered(s2).to(torch.int8),
               "s2_zeros": ordered(-(zero * s2)).to(torch.int8)}
    return tensors, values.half()


def spqr(w, _options):
    o, i = w.shape
    t = w.reshape(o // 16, 16, i // 16, 16).transpose(1, 2)  # tile rows, tile columns, rows, columns
    outlier = (t - t.mean((2, 3), keepdim=True)).abs() > 5 * t.std((2, 3), keepdim=True)
    kept = torch.where(outlier, t.mean((2, 3), keepdim=True), t)
    low, high = kept.amin(3), kept.amax(3)
    scale, zero = (high - low).clamp(min=1e-6) / 7, None
    zero = -low / scale

    def second(x):  # codes, and the scale and zero of a tile
        lo, hi = x.amin(2, keepdim=True), x.amax(2, keepdim=True)
        ss = ((hi - lo).clamp(min=1e-6) / 7).half().float()
        zz = (-lo / ss).clamp(-60000, 60000).half().float()
        return torch.round(x / ss + zz).clamp(0, 7), ss, zz

    def half(x):
        return x.half().float()

    cs, ss, zs = second(scale)
    cz, sz, zz = second(zero)
    s, z = half(ss * half(cs - zs)), half(sz * half(cz - zz))
    q = torch.round(kept / torch.where(s == 0, torch.ones_like(s), s)[..., None] + z[..., None]).clamp(0, 7)
    dense = half(s[..., None] * half(q - z[..., None]))
    extra = torch.where(outlier, half(t - dense), torch.zeros_like(t))
    values = (dense + extra).transpose(1, 2).reshape(o, i).half()
    extra = extra.transpose(1, 2).reshape(o, i)
    four = torch.stack([ss[..., 0], sz[..., 0], zs[..., 0], zz[..., 0]], -1).half().numpy().view(np.uint16).astype(np.uint64)
    bits = sum(four[..., p] << np.uint64(16 * p) for p in range(4))
    word = cs.numpy().astype(np.uint64) | cz.numpy().astype(np.uint64) << np.uint64(3)
    for c in range(16):
        word |= q[..., c].numpy().astype(np.uint64) << np.uint64(6 + 3 * c)
    for k in range(16):
        word[..., k] |= (bits >> np.uint64(8 * (k // 2)) & np.uint64(255)) << np.uint64(54)
    rows, columns = np.nonzero(extra.numpy())
    entries = columns.astype(np.uint32) | extra.half().numpy().view(np.uint16)[rows, columns].astype(np.uint32) << np.uint32(16)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=o))]).astype(np.int32)
    return {"dense_weights": torch.from_numpy(word.reshape(-1).view(np.int64).copy()), "row_offsets": torch.from_numpy(offsets),
            "col_vals": torch.from_numpy(entries.view(np.int32).copy()),
            "in_perm": torch.from_numpy(np.arange(i, dtype=np.uint16).view(np.int32).copy())}, values


def walsh(x, n):
    """The orthonormal Walsh-Hadamard transform of every n columns."""
    shape, d = x.shape, 1
    x = x.reshape(-1, n)
    while d < n:
        x = x.reshape(-1, n // (2 * d), 2, d)
        x = torch.stack([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], 2).reshape(-1, n)
        d *= 2
    return (x / n ** 0.5).reshape(shape)


def paley(k):
    """The K x K matrix of kernels/hadamard.h: of q + 1 for a prime q = 3 mod 4, or of 2 (q + 1) for one = 1 mod 4."""
    if k == 1:
        return torch.ones(1, 1)
    prime = all((k - 1) % d for d in range(2, k - 1)) and k % 4 == 0
    q = k - 1 if prime else k // 2 - 1
    squares = {i * i % q for i in range(1, q)}
    s = torch.zeros(q + 1, q + 1)
    s[0, 1:], s[1:, 0] = -1 if prime else 1, 1
    for i in range(q):
        for j in range(q):
            s[i + 1, j + 1] = 0 if i == j else 1 if (i - j) % q in squares else -1
    one = torch.eye(q + 1)
    return s + one if prime else torch.cat([torch.cat([s + one, s - one], 1), torch.cat([s - one, -s - one], 1)])


def quarot(weights, config):
    """The state of QuaRot's converter, without the rotation of the residual stream (any orthogonal one will do, so none)."""
    out, values = {}, {}
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    dim = config.get("head_dim") or hidden // heads
    ffn = config["intermediate_size"]
    power = ffn & -ffn
    h12 = paley(12)
    for name, w in weights.items():
        module = name[:-len(".weight")]
        if not module.endswith(LAYER):
            if "layernorm" in name:
                continue
            out[name] = w.half()
            continue
        layer = module.split("self_attn")[0].split("mlp")[0]
        w = w.float()
        if module.endswith(("q_proj", "k_proj", "v_proj")):
            w = w * weights[layer + "input_layernorm.weight"].float()
        if module.endswith(("gate_proj", "up_proj")):
            w = w * weights[layer + "post_attention_layernorm.weight"].float()
        if module.endswith("down_proj"):
            if power != ffn:
                k, power = 12, ffn // 12
                assert power & (power - 1) == 0, f"{ffn} is not 12 times a power of two"
                w = walsh(w.reshape(-1, k, power), power)
                w = torch.einsum("kj,rjt->rkt", h12, w).reshape(-1, ffn) / k ** 0.5
                out[module + ".0.had_rem_dim"] = h12.half()
                power = ffn & -ffn
            else:
                w = walsh(w, ffn)
            module += ".2"
        if module.endswith("o_proj"):
            if heads & (heads - 1):
                return None, None  # one over the heads, of an order that QuaRot has no matrix for
            w = walsh(w.reshape(-1, heads, dim).transpose(1, 2), heads).transpose(1, 2).reshape(-1, heads * dim)
            module += ".1"
        scale = (w.abs().amax(1, keepdim=True) / 7).clamp(min=1e-6).half()
        codes = torch.round(w / scale.float()).clamp(-8, 7).to(torch.int8)
        out[module + ".weight"] = (codes[:, 0::2] & 15).to(torch.uint8) | (codes[:, 1::2] & 15).to(torch.uint8) << 4
        out[module + ".weight_scales"] = scale
        values[name] = scale.float() * codes
    return out, values


def hadamard(x, transposed):
    """H x of each row x, or H^T x."""
    n = x.shape[1]
    k = {1: 1, 3: 12, 5: 20, 7: 28, 9: 36, 15: 60, 27: 108, 35: 140}[n // (n & -n)]
    h = paley(k)
    x = walsh(x.reshape(-1, k, n // k), n // k)
    return torch.einsum("kj,rjt->rkt", h.T if transposed else h, x).reshape(-1, n) / k ** 0.5


TWELVE = """31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133 33133311 33133131 33131331
33133113 33131313 33131133 31333311 31333131 31331331 31333113 31331313 13331133 13333311 13333131 13331331 13333113 13331313
11331333 33113331""".split()
SLOTS = (0, 2, 4, 6, 1, 3, 5, 7)  # the coordinate of each sign bit


def e8p_rows():
    rows = [r for r in itertools.product((0.5, 1.5, 2.5), repeat=8) if sum(v * v for v in r) <= 10]
    return torch.tensor(rows + [[int(c) / 2 for c in r] for r in TWELVE])


def e8p(x):
    """Codes of E8P nearest to (n, 8), and their values."""
    rows = e8p_rows()
    odd = rows.sum(1) % 2 == 1
    slots = torch.tensor(SLOTS)
    codes, values = [], []
    for part in x.split(2048):
        best = None
        for minus, shift in ((0, 0.25), (1, -0.25)):
            y = part - shift
            size, dot = y.abs(), y.abs() @ rows.T
            least = torch.full_like(dot, 1e9)
            for i in range(8):
                least = torch.minimum(least, size[:, i:i + 1] * rows[:, i])
            wrong = ((y < 0).sum(1, keepdim=True) % 2 == 1) != odd
            score = 2 * torch.where(wrong, dot - 2 * least, dot) - (rows * rows).sum(1)
            at = score.argmax(1)
            row = rows[at]
            sign = torch.where(y < 0, -1.0, 1.0)
            turn = torch.nn.functional.one_hot((size * row).argmin(1), 8) * wrong.gather(1, at[:, None])
            sign = sign * (1 - 2 * turn)
            bits = (sign[:, slots] < 0).long()
            bits[:, 7] ^= odd[at].long()
            code = (at << 8) | (bits << torch.arange(8)).sum(1) ^ minus
            value = sign * row + shift
            distance = ((part - value) ** 2).sum(1)
            if best is None:
                best = [distance, code, value]
            else:
                nearer = distance < best[0]
                best = [best[0], torch.where(nearer, code, best[1]), torch.where(nearer[:, None], value, best[2])]
        codes.append(best[1])
        values.append(best[2])
    return torch.cat(codes), torch.cat(values)


def e8(x):
    """The same of the book of 256 vectors of E8."""
    book = [v for v in itertools.product((-1.0, 0.0, 1.0), repeat=8) if sum(c * c for c in v) <= 2 and sum(v) % 2 == 0]
    book += [v for v in itertools.product((-0.5, 0.5), repeat=8) if sum(v) % 2 == 0]
    book += [[s * (i == j) for j in range(8)] for s in (2.0, -2.0) for i in range(8)][:15]
    book = torch.tensor(book)
    codes = torch.cat([(2 * part @ book.T - (book * book).sum(1)).argmax(1) for part in x.split(65536)])
    return codes, book[codes]


def e8p_words(codes):
    """(rows, columns / 8) codes in the library's order: words of two rows and two columns, in tiles of 16 x 64 values."""
    m, n = codes.shape
    c = codes.numpy().astype(np.uint64).reshape(m // 16, 8, 2, n // 8, 4, 2).transpose(0, 3, 1, 4, 5, 2)
    c = c.reshape(-1, 4)  # code i = row + 2 * column
    words = np.zeros(len(c), np.uint64)
    for i in range(4):
        words |= (c[:, i] >> np.uint64(8)) << np.uint64(8 * i)
        for j in range(8):
            words |= (c[:, i] >> np.uint64(j) & np.uint64(1)) << np.uint64(32 + 4 * j + i)
    return torch.from_numpy(words.view(np.int64).reshape(m, n // 4).copy())


BOOKS = {2: ("E8P12", 7, 1, 4, 1.03, 1), 3: ("E8P12RVQ3B", 18, 0, 8 / 3, 0.98, 2.04), 4: ("E8P12RVQ4B", 17, 1, 2, 1.03, 3.45)}


def quip(weights, bits):
    """The state of QuIP#'s writer, without its Hessians and fine-tuning: each row of 8 to the nearest code."""
    _, book_id, _, _, scale, residual = BOOKS[bits]
    out = {n: w.half() for n, w in weights.items() if not n[:-len(".weight")].endswith(LAYER)}
    generator = torch.Generator().manual_seed(11)
    signs = lambda n: torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
    fused = {"self_attn.qkv_proj": LAYER[:3], "self_attn.o_proj": LAYER[3:4], "mlp.upgate_proj": (LAYER[5], LAYER[4]),
             "mlp.down_proj": LAYER[6:]}
    layers = sorted({n.split("self_attn")[0] for n in weights if "self_attn" in n})
    for layer in layers:
        for module, parts in fused.items():
            w = [weights[f"{layer}{part}.weight"].float() for part in parts]
            rms = torch.stack([p.square().mean().sqrt() for p in w])
            w = torch.cat([p / r for p, r in zip(w, rms)])
            su, sv = signs(w.shape[1]), signs(w.shape[0])
            w = hadamard(w * su, True)                       # rows times H
            w = hadamard((w * sv[:, None]).T, True).T        # columns: H^T times w
            step = w.square().mean().sqrt() / scale
            codes, values = e8p((w / step).reshape(-1, 8))
            shape = (w.shape[0], w.shape[1] // 8)
            words = [e8p_words(codes.reshape(shape))]
            rest = ((w / step).reshape(-1, 8) - values) * residual
            if bits == 4:
                words.append(e8p_words(e8p(rest)[0].reshape(shape)))
            if bits == 3:
                second = e8(rest)[0].reshape(shape).numpy().astype(np.uint8)
                words.append(torch.from_numpy(second.view(np.int64).copy()))
            single = len(parts) == 1
            tensors = {"Qidxs": torch.cat(words, 1), "SU": su.half(), "SV": (sv * step * (rms[0] if single else 1)).half(),
                       "Wscale": torch.tensor(1.0), "codebook_id": torch.tensor(book_id)}
            if not single:
                tensors["fuse_scales"] = rms
            out.update({f"{layer}{module}.{n}": t for n, t in tensors.items()})
    return out


def quip_config(bits):
    name, _, version, packsz, _, _ = BOOKS[bits]
    return {"codebook": name, "codebook_version": version, "codesz": 8, "idx_dtype": "torch.int64", "lora_rank": 0,
            "model_version": 1, "outlier_channel_split": False, "pack_out": False, "packsz": packsz, "rescale_WH": False,
            "resid_scale_override": -1}


METHODS = {
    "f16": (None, None, {}),
    "gptq-4": (gptq, gptq_config, {}),
    "gptq-4-sym": (gptq, gptq_config, dict(symmetric=True)),
    "gptq-4-v2": (gptq, gptq_config, dict(version=2)),
    "gptq-4-act-order": (gptq, gptq_config, dict(version=2, act_order=True)),
    "gptq-4-row": (gptq, gptq_config, dict(group=-1)),
    "gptq-3": (gptq, gptq_config, dict(bits=3)),
    "gptq-2": (gptq, gptq_config, dict(bits=2, version=2)),
    "gptq-8": (gptq, gptq_config, dict(bits=8)),
    "awq-gemm": (awq, awq_config, {}),
    "awq-gemv": (awq, awq_config, dict(version="gemv")),
    "qserve": (qserve, None, {}),
    "qserve-g64": (qserve, None, dict(group=64)),
    "spqr": (spqr, lambda: {"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16}, {}),
    "quarot": (None, None, {}),
    "quip-2": (None, None, dict(bits=2)),
    "quip-3": (None, None, dict(bits=3)),
    "quip-4": (None, None, dict(bits=4)),
}


def load(path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    where = {"pretrained_model_name_or_path": path}
    if path.endswith(".gguf"):
        where = {"pretrained_model_name_or_path": os.path.dirname(path) or ".", "gguf_file": os.path.basename(path)}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(**where)


def fnv(values):
    h = np.uint64(14695981039346656037)
    with np.errstate(over="ignore"):
        for b in values.contiguous().half().numpy().view(np.uint8).reshape(-1):
            h = (h ^ np.uint64(b)) * np.uint64(1099511628211)
    return f"{int(h):016x}"


def write_golden(options):
    torch.manual_seed(7)
    w = torch.randn(32, 64) * 0.1
    kinds = []
    dtypes = {torch.int32: "I32", torch.float16: "F16"}
    for name, (make, config, settings) in METHODS.items():
        if make not in (gptq, awq):
            continue
        settings = dict({"group": 32}, **settings)
        tensors, values = make(w, options, **settings)
        packed = {n: {"dtype": dtypes[t.dtype], "shape": list(t.shape),
                      "data": t.contiguous().numpy().tobytes().hex()} for n, t in tensors.items()}
        kinds.append({"name": name, "config": config(**settings), "tensors": packed, "values": fnv(values)})
    with open(options.golden, "w") as f:
        json.dump({"made_by": "tools/make_reference_checkpoints.py", "rows": 32, "cols": 64, "kinds": kinds}, f, indent=1)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--out")
    parser.add_argument("--golden")
    parser.add_argument("--packages", default=".")
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    options = parser.parse_args()
    if options.golden:
        write_golden(options)
        return
    model, tokenizer = load(options.model)
    config = model.config.to_dict()
    weights = {n: p.data for n, p in model.named_parameters()}
    for name in options.methods or METHODS:
        make, config_of, settings = METHODS[name]
        out = os.path.join(options.out, name)
        os.makedirs(out, exist_ok=True)
        model.config.save_pretrained(out)
        tokenizer.save_pretrained(out)
        with open(os.path.join(out, "config.json")) as f:
            written = json.load(f)
        written.pop("quantization_config", None)  # of the source
        if name == "quarot":
            tensors, _ = quarot(weights, config)
            if tensors is None:
                print(f"{name}: not for {config['num_attention_heads']} heads")
                continue
            written.update(model_type="llama_quarot", architectures=["QuarotLlamaForCausalLM"])
        elif name.startswith("quip"):
            tensors = quip(weights, **settings)
            written["quip_params"] = quip_config(**settings)
        else:
            tensors = {}
            for n, w in weights.items():
                if make and n[:-len(".weight")].endswith(LAYER):
                    packed, _ = make(w, options, **settings)
                    tensors.update({n[:-len("weight")] + t: v.contiguous() for t, v in packed.items()})
                else:
                    tensors[n] = w.half()
            if config_of:
                written["quantization_config"] = config_of(**settings)
        save_file({n: t.contiguous() for n, t in tensors.items()}, os.path.join(out, "model.safetensors"), {"format": "pt"})
        with open(os.path.join(out, "config.json"), "w") as f:
            json.dump(written, f, indent=2)
        print(name)


if __name__ == "__main__":
    main()
