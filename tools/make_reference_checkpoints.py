#!/usr/bin/env python3
"""Writes a model as GPTQ, AWQ, QServe, QuaRot, SpQR and QuIP# writers would, to be read by Quire.

    make_reference_checkpoints.py --model DIR|FILE.gguf --out DIR [--layers N] [METHOD...]
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
import json
import os
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

from rotated_checkpoints import LAYER, quarot, quip, quip_config


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
    parser.add_argument("--layers", type=int, help="only the first layers")
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    options = parser.parse_args()
    if options.golden:
        write_golden(options)
        return
    model, tokenizer = load(options.model)
    config = model.config.to_dict()
    layers = model.config.num_hidden_layers = options.layers or model.config.num_hidden_layers
    weights = {n: p.data for n, p in model.named_parameters()
               if ".layers." not in n or int(n.split(".layers.")[1].split(".")[0]) < layers}
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
