#!/usr/bin/env python3
"""Makes a directory of safetensors, which Quire reads, of one with PyTorch's pickles, which it does not.

    convert_torch.py SOURCE OUT [--quantization JSON]

SOURCE: a directory with config.json and pytorch_model.bin, its shards with an index, or one .pt or .pth file; or such a file, with
config.json beside it. For models of QServe / QoQ (mit-han-lab/*-QServe), QuaRot, OmniQuant's real quantization (AutoGPTQ's layout)
and AutoGPTQ's older files. --quantization is put into config.json as its quantization_config where the source has none and the
tensors' names do not tell: '{"quant_method": "gptq", "bits": 4, "group_size": 128}'; for a QServe model of DeepCompressor's converter
'{"quant_method": "qserve", "s2_order": "deepcompressor"}'.

A pickle can run any program. These are opened with torch's restricted unpickler (weights_only), which makes tensors and plain
containers and refuses the rest: what it refuses is not converted. Values are copied as they are. Needs torch and safetensors.
"""
import argparse
import json
import os
import shutil

import torch
from safetensors.torch import save_file

SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "generation_config.json",
              "chat_template.jinja", "added_tokens.json", "quantize_config.json", "quant_config.json")


def pickles_of(source):
    if os.path.isfile(source):
        return [source]
    index = os.path.join(source, "pytorch_model.bin.index.json")
    if os.path.exists(index):
        with open(index) as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
        if any(os.path.basename(n) != n for n in names):
            raise SystemExit(f"{index} names files outside its directory")
        return [os.path.join(source, n) for n in names]
    found = sorted(n for n in os.listdir(source) if n.endswith((".bin", ".pt", ".pth")) and n != "training_args.bin")
    if len(found) != 1:
        raise SystemExit(f"{source}: one .bin, .pt or .pth file or an index of several is needed; there are {len(found)}")
    return [os.path.join(source, found[0])]


def tensors_of(path):
    with open(path, "rb") as f:
        archive = f.read(2) == b"PK"  # files before torch 1.6 are no archive, and cannot be mapped
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as e:
        raise SystemExit(f"{path} is refused: {str(e).splitlines()[0] if str(e) else type(e).__name__}")
    for key in ("state_dict", "model"):  # how training scripts wrap them
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise SystemExit(f"{path} holds no dictionary of tensors")
    wrong = [n for n, t in state.items() if not isinstance(n, str) or not isinstance(t, torch.Tensor)]
    if wrong:
        raise SystemExit(f"{path}: '{wrong[0]}' is no tensor")
    return {n: t.detach().clone().contiguous() for n, t in state.items()}  # apart, also if they shared memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--quantization", type=json.loads)
    options = parser.parse_args()
    directory = options.source if os.path.isdir(options.source) else os.path.dirname(options.source) or "."
    with open(os.path.join(directory, "config.json")) as f:
        config = json.load(f)
    if options.quantization and "quantization_config" in config:
        raise SystemExit("config.json has a quantization_config already")
    if options.quantization:
        config["quantization_config"] = options.quantization
    os.makedirs(options.out, exist_ok=True)
    files = pickles_of(options.source)
    weight_map = {}
    for i, path in enumerate(files):
        name = "model.safetensors" if len(files) == 1 else f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        tensors = tensors_of(path)
        save_file(tensors, os.path.join(options.out, name), {"format": "pt"})
        weight_map.update({n: name for n in tensors})
        print(f"{path}: {len(tensors)} tensors")
    if len(files) > 1:
        with open(os.path.join(options.out, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {}, "weight_map": weight_map}, f)
    with open(os.path.join(options.out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    for name in SIDE_FILES:
        if os.path.exists(os.path.join(directory, name)):
            shutil.copyfile(os.path.join(directory, name), os.path.join(options.out, name))


if __name__ == "__main__":
    main()
