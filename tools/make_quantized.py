#!/usr/bin/env python3
"""Writes a model in the formats of other quantizers, with their own code, and what they make of it.

    make_quantized.py --model DIR|FILE.gguf|small --out DIR [METHOD...]

Each METHOD (all without one: see the end of this file) becomes the directory OUT/METHOD; phi3-METHOD is of a small
Phi 3, whose modules are fused. --golden FILE.json gathers, for a small model, a hash of what the writer itself makes of each matrix
of the network, and the logits of transformers with those weights: test data of tests/models/hf_compressed_test.cpp.
Needs torch, transformers, compressed-tensors, bitsandbytes, safetensors (and gguf for files).
Scales come from the ranges of the weights; static scales of activations and of the cache from a few prompts. That is the least a
quantizer does: accuracy is not the point, the files are.
"""
import argparse
import copy
import json
import os
import shutil
import sys
import traceback

import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, Phi3Config,
                          Phi3ForCausalLM)

from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (QuantizationArgs, QuantizationConfig, QuantizationScheme,
                                             apply_quantization_config)
from compressed_tensors.quantization.utils import calculate_qparams

PROMPT = [1, 7, 3, 22, 9, 14, 30, 5]
PHI3_METHODS = ("w4a16-asym", "w8a8-static", "bnb-int8", "bnb-nf4-double")


def small_model(kind=LlamaForCausalLM):
    torch.manual_seed(11)
    sizes = dict(vocab_size=32, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                 num_key_value_heads=1, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False)
    if kind is Phi3ForCausalLM:
        config = Phi3Config(**sizes, original_max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    else:
        config = LlamaConfig(**sizes)
    model = kind(config).to(torch.bfloat16).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * (0.1 if p.ndim == 2 else 0.2) + (0.0 if p.ndim == 2 else 1.0))
    return model


def load_model(path):
    if path == "small":
        return small_model(), None
    if path.endswith(".gguf"):
        where = {"pretrained_model_name_or_path": os.path.dirname(path) or ".", "gguf_file": os.path.basename(path)}
    else:
        where = {"pretrained_model_name_or_path": path}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):  # of a GGUF file, whose weights are floats by now
        del config.quantization_config
    model = type(loaded)(config).to(torch.bfloat16).eval()
    model.load_state_dict(loaded.state_dict())
    return model, AutoTokenizer.from_pretrained(**where)


def calibrate(model, modules, prompt):
    """The largest magnitude of what each module reads and writes."""
    seen = {name: [0.0, 0.0] for name in modules}
    hooks = []
    for name, module in modules.items():
        def hook(_, args, out, name=name):
            seen[name] = [max(seen[name][0], args[0].abs().max().item()), max(seen[name][1], out.abs().max().item())]
        hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(torch.tensor([prompt]))
    for h in hooks:
        h.remove()
    return seen


def ranges(weight, args):
    w = weight.float()
    if args.strategy == "tensor":
        return w.min().reshape(1), w.max().reshape(1)
    if args.strategy == "channel":
        return w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    if args.strategy == "group":
        groups = w.reshape(w.shape[0], -1, args.group_size)
        return groups.amin(2), groups.amax(2)
    rows, cols = args.block_structure
    down, across = -(-w.shape[0] // rows), -(-w.shape[1] // cols)
    padded = torch.zeros(down * rows, across * cols)
    padded[:w.shape[0], :w.shape[1]] = w
    blocks = padded.reshape(down, rows, across, cols)
    return blocks.amin((1, 3)), blocks.amax((1, 3))


def compressed(model, out, prompt, weights, inputs=None, cache=False, targets=("Linear",), ignore=("lm_head",)):
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    static = inputs is not None and not inputs.get("dynamic")
    seen = calibrate(model, linears, prompt) if static or cache else {}
    fp8 = dict(num_bits=8, type="float", symmetric=True, strategy="tensor", dynamic=False)
    scheme = QuantizationScheme(targets=list(targets), weights=QuantizationArgs(**weights),
                                input_activations=QuantizationArgs(**inputs) if inputs else None)
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=list(ignore),
                                kv_cache_scheme=QuantizationArgs(**fp8) if cache else None)
    apply_quantization_config(model, config)
    dequantized = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            scheme = getattr(module, "quantization_scheme", None)
            if name.endswith("self_attn") and cache:
                for which in "kv":  # the library makes these only for attentions whose forward() it knows
                    scale = torch.tensor([seen[f"{name}.{which}_proj"][1] / 448], dtype=torch.bfloat16)
                    setattr(module, which + "_scale", torch.nn.Parameter(scale, requires_grad=False))
                continue
            if scheme is None or scheme.weights is None or not isinstance(module, torch.nn.Linear):
                continue
            low, high = ranges(module.weight, scheme.weights)
            scale, zero = calculate_qparams(low, high, scheme.weights)
            module.weight_scale.data = scale.to(module.weight_scale.dtype).reshape(module.weight_scale.shape)
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype).reshape(
                    module.weight_zero_point.shape)
            if static:
                most = 448 if inputs["type"] == "float" else 127
                module.input_scale.data.fill_(seen[name][0] / most)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)
    if cache:  # recorded, too, only for the attentions that the library knows
        path = os.path.join(out, "config.json")
        saved = json.load(open(path))
        saved["quantization_config"]["kv_cache_scheme"] = fp8
        json.dump(saved, open(path, "w"), indent=2)
    # What the library makes of each matrix again, in f32.
    plain = copy.deepcopy(model)
    for name, module in plain.named_modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = module.weight_scale.data.float()
    compressor.decompress_model(plain)
    for name, module in plain.named_modules():
        if hasattr(module, "weight_scale") and isinstance(module, torch.nn.Linear):
            dequantized[name] = module.weight.data.float()
    return dequantized


def bits_and_bytes(model, out, _prompt, **options):
    source = out + ".source"
    model.save_pretrained(source)
    config = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=["lm_head"], **options)
    loaded = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu",
                                                  dtype=torch.bfloat16)
    loaded.save_pretrained(out)
    shutil.rmtree(source)
    import bitsandbytes as bnb
    dequantized = {}
    for name, module in loaded.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            state = module.weight.quant_state
            state.dtype = torch.float32
            dequantized[name] = bnb.functional.dequantize_4bit(module.weight.data, state).float()
        elif isinstance(module, bnb.nn.Linear8bitLt):
            stats = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
            dequantized[name] = module.weight.data.float() * (stats.float() * (1.0 / 127.0)).reshape(-1, 1)
    return dequantized


def save_plain(model, out, tensors, quantization, side=None):
    """A directory whose quantized matrices are given, as writers without a library here lay them out."""
    model.save_pretrained(out)
    file = os.path.join(out, "model.safetensors")
    state = load_file(file)
    state.update(tensors)
    save_file(state, file, metadata={"format": "pt"})
    path = os.path.join(out, "config.json")
    config = json.load(open(path))
    if side is None:
        config["quantization_config"] = quantization
    else:
        json.dump(quantization, open(os.path.join(out, side), "w"))
    json.dump(config, open(path, "w"), indent=2)


def to_fp8(w, scale):
    return (w / scale).clamp(-448, 448).to(torch.float8_e4m3fn)


def deepseek_fp8(model, out, _prompt, rows=128, cols=128):
    tensors, dequantized = {}, {}
    args = QuantizationArgs(num_bits=8, type="float", strategy="block", block_structure=[rows, cols])
    for name, m in model.named_modules():
        if not isinstance(m, torch.nn.Linear) or name == "lm_head":
            continue
        low, high = ranges(m.weight, args)
        scale = torch.maximum(-low, high) / 448
        full = scale.repeat_interleave(rows, 0).repeat_interleave(cols, 1)[:m.weight.shape[0], :m.weight.shape[1]]
        codes = to_fp8(m.weight.float(), full)
        tensors[name + ".weight"], tensors[name + ".weight_scale_inv"] = codes, scale
        dequantized[name] = codes.float() * full
    save_plain(model, out, tensors, {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                                     "weight_block_size": [rows, cols]})
    return dequantized


def tensor_fp8(model, out, prompt, modelopt=False):
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    seen = calibrate(model, linears, prompt)
    tensors, dequantized = {}, {}
    for name, m in linears.items():
        scale = m.weight.float().abs().max() / 448
        codes = to_fp8(m.weight.float(), scale)
        tensors[name + ".weight"], tensors[name + ".weight_scale"] = codes, scale.reshape(() if modelopt else (1,))
        tensors[name + ".input_scale"] = torch.tensor(seen[name][0] / 448).reshape(() if modelopt else (1,))
        if modelopt and name.endswith(("k_proj", "v_proj")):
            tensors[name + "." + name[-6] + "_scale"] = torch.tensor(seen[name][1] / 448)
        dequantized[name] = codes.float() * scale
    if modelopt:
        save_plain(model, out, tensors, {"producer": {"name": "modelopt", "version": "0.29"}, "quantization":
                   {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}},
                   "hf_quant_config.json")
    else:
        save_plain(model, out, tensors, {"quant_method": "fp8", "activation_scheme": "static",
                                         "ignored_layers": ["lm_head"]})
    return dequantized


def integers(bits, strategy, group=None, symmetric=True):
    return dict(num_bits=bits, type="int", symmetric=symmetric, strategy=strategy, group_size=group, dynamic=False)


def floats(strategy, block=None):
    return dict(num_bits=8, type="float", symmetric=True, strategy=strategy, block_structure=block, dynamic=False)


def by_token(kind):
    return dict(num_bits=8, type=kind, symmetric=True, strategy="token", dynamic=True)


def by_tensor(kind):
    return dict(num_bits=8, type=kind, symmetric=True, strategy="tensor", dynamic=False)


def methods(small):
    group, block = (32, [48, 32]) if small else (64, [128, 128])
    ct, bnb = compressed, bits_and_bytes
    return {
        "w8a8": (ct, dict(weights=integers(8, "channel"), inputs=by_token("int"))),
        "w8a8-static": (ct, dict(weights=integers(8, "channel"), inputs=by_tensor("int"))),
        "w8a8-tensor": (ct, dict(weights=integers(8, "tensor"), inputs=by_token("int"))),
        "w8a8-asym": (ct, dict(weights=integers(8, "channel", None, False), inputs=by_token("int"))),
        "w4a16": (ct, dict(weights=integers(4, "group", group), targets=(r"re:.*(self_attn|mlp)\..*_proj$",))),
        "w4a16-asym": (ct, dict(weights=integers(4, "group", group, False))),
        "w4a16-row": (ct, dict(weights=integers(4, "channel"), ignore=("lm_head", "re:.*o_proj"))),
        "w4a8": (ct, dict(weights=integers(4, "group", group), inputs=by_token("int"))),
        "w8a16": (ct, dict(weights=integers(8, "group", group))),
        "w6a16": (ct, dict(weights=integers(6, "group", group))),
        "w3a16": (ct, dict(weights=integers(3, "group", group, False))),
        "w2a16": (ct, dict(weights=integers(2, "group", group))),
        "fp8": (ct, dict(weights=floats("tensor"), inputs=by_tensor("float"))),
        "fp8-dynamic": (ct, dict(weights=floats("channel"), inputs=by_token("float"))),
        "fp8-block": (ct, dict(weights=floats("block", block),
                               inputs=dict(num_bits=8, type="float", symmetric=True, strategy="group",
                                           group_size=block[1], dynamic=True))),
        "fp8-kv": (ct, dict(weights=floats("tensor"), inputs=by_tensor("float"), cache=True)),
        "deepseek-fp8": (deepseek_fp8, dict(rows=block[0], cols=block[1])),
        "autofp8": (tensor_fp8, dict()),
        "modelopt-fp8": (tensor_fp8, dict(modelopt=True)),
        "bnb-int8": (bnb, dict(load_in_8bit=True)),
        "bnb-nf4": (bnb, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
        "bnb-nf4-double": (bnb, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
        "bnb-fp4": (bnb, dict(load_in_4bit=True, bnb_4bit_quant_type="fp4")),
    }


def parts_of(config, name, values):
    """A fused module's matrix as the network's, by name."""
    head = config.hidden_size // config.num_attention_heads
    if name.endswith("qkv_proj"):
        rows = [config.num_attention_heads * head] + 2 * [config.num_key_value_heads * head]
        return {name.replace("qkv", which): v for which, v in zip("qkv", values.split(rows))}
    if name.endswith("gate_up_proj"):
        return {name.replace("gate_up", which): v for which, v in zip(("gate", "up"), values.chunk(2))}
    return {name: values}


def fnv1a(tensor):
    """64 bits of the f32 values' bytes, row after row."""
    h = 0xcbf29ce484222325
    for byte in tensor.detach().contiguous().float().numpy().tobytes():
        h = ((h ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return f"{h:016x}"


def logits_with(model, dequantized):
    """Logits of the last token of PROMPT with these weights in f64, and how far an engine may be from them that computes in f32
    with a cache in f16: to first order, what each product's rounding, and that of keys and values, does to each logit."""
    exact = copy.deepcopy(model).double()
    exact.config._attn_implementation = "eager"
    inputs, outputs = {}, {}
    with torch.no_grad():
        for name, values in dequantized.items():
            exact.get_submodule(name).weight.copy_(values.double())
    for name, module in exact.named_modules():
        if isinstance(module, torch.nn.Linear):
            def hook(m, args, out, name=name):
                out.retain_grad()
                inputs[name], outputs[name] = args[0].detach(), out
            module.register_forward_hook(hook)
    logits = exact(torch.tensor([PROMPT])).logits[0, -1]
    head, bounds = exact.config.hidden_size // exact.config.num_attention_heads, []
    for logit in logits:
        exact.zero_grad()
        for out in outputs.values():
            out.grad = None
        logit.backward(retain_graph=True)
        bound = 0.0
        for name, out in outputs.items():
            weight = exact.get_submodule(name).weight.abs()
            # A sum of K products, and x that norms, silu and softmax rounded before.
            error = (2 * weight.shape[1] + 32) * 2.0**-24 * (inputs[name].abs() @ weight.T)
            value = out.detach()
            if name.endswith("v_proj"):
                error = error + value.abs() * 2.0**-11 + 2.0**-25
            if name.endswith(("k_proj", "qkv_proj")):  # rounded after rope, which mixes the two of a pair
                pairs = value.reshape(*value.shape[:-1], -1, 2, head // 2)
                radius = pairs.norm(dim=-2, keepdim=True).expand_as(pairs).reshape(value.shape)
                error = error + 2 * radius * 2.0**-11 + 2.0**-24
            grad = out.grad.abs() if out.grad is not None else torch.zeros_like(value)
            bound += (grad * error).sum().item()
        bounds.append(2 * bound)  # twice, for what is not of first order
    return logits.detach().tolist(), bounds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--golden", help="JSON of hashes and logits")
    parser.add_argument("method", nargs="*")
    args = parser.parse_args()
    known = methods(args.model == "small")
    if args.model == "small":
        known.update({"phi3-" + name: known[name] for name in PHI3_METHODS})
    source, tokenizer = load_model(args.model)
    llama = source
    prompt = PROMPT if tokenizer is None else tokenizer(
        "The river rises in the mountains, and after a hundred miles it reaches the sea.")["input_ids"]
    golden = {}
    failed = []
    for name in args.method or known:
        write, options = known[name]
        source = small_model(Phi3ForCausalLM) if name.startswith("phi3-") else llama
        out = os.path.join(args.out, name)
        shutil.rmtree(out, ignore_errors=True)
        try:
            dequantized = write(copy.deepcopy(source), out, prompt, **options)
        except Exception:  # of one writer's library: the others can still go on
            traceback.print_exc()
            failed.append(name)
            continue
        if tokenizer is not None:
            tokenizer.save_pretrained(out)
        if args.golden:
            logits, bounds = logits_with(source, dequantized)
            golden[name] = {"config": json.load(open(os.path.join(out, "config.json"))),
                            "matrices": {k: fnv1a(v) for module, values in dequantized.items()
                                         for k, v in parts_of(source.config, module, values).items()},
                            "logits": logits, "bounds": bounds}
            side = os.path.join(out, "hf_quant_config.json")
            if os.path.exists(side):
                golden[name]["hf_quant_config"] = json.load(open(side))
        print(name, len(dequantized), "matrices")
    if args.golden:
        with open(args.golden, "w") as f:
            json.dump({"prompt": PROMPT, "cases": golden}, f)
    if failed:
        sys.exit("failed: " + " ".join(failed))


if __name__ == "__main__":
    main()
