#!/usr/bin/env python3
"""Writes tests/models/golden_families.json: logits of tiny models of every family, as transformers computes them.

    pip install torch transformers
    tools/golden_families.py tests/models/golden_families.json

Weights are not stored: both sides make them from the tensors' names (value_of below; tests/models/families_test.cpp).
"""
import json
import sys

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 300  # of the tests' tokenizer
BASE = dict(hidden_size=72, intermediate_size=104, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
            head_dim=32, vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False)
LLAMA = dict(BASE, architectures=["LlamaForCausalLM"], model_type="llama")
PHI = dict(BASE, architectures=["Phi3ForCausalLM"], model_type="phi3", hidden_size=96, pad_token_id=0,
           original_max_position_embeddings=64)
LONGROPE = {"type": "longrope", "short_factor": [1 + i / 10 for i in range(16)],
            "long_factor": [1 + i / 2 for i in range(16)]}
CASES = {
    "llama 2": (40, dict(LLAMA, num_key_value_heads=3, hidden_size=96, head_dim=None)),
    "llama 3.1": (160, dict(LLAMA, rope_theta=500000.0,
                            rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                          "high_freq_factor": 4.0, "original_max_position_embeddings": 64})),
    "llama linear": (80, dict(LLAMA, rope_scaling={"type": "linear", "factor": 2.5})),
    "llama yarn": (160, dict(LLAMA, rope_scaling={"rope_type": "yarn", "factor": 4.0,
                                                  "original_max_position_embeddings": 64})),
    "mistral": (100, dict(BASE, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=24)),
    "qwen 2": (40, dict(BASE, architectures=["Qwen2ForCausalLM"], model_type="qwen2", head_dim=None, hidden_size=96,
                        tie_word_embeddings=True, rope_theta=1000000.0, use_sliding_window=False,
                        sliding_window=4096, max_window_layers=1)),
    "qwen 2 windowed": (100, dict(BASE, architectures=["Qwen2ForCausalLM"], model_type="qwen2", head_dim=None,
                                  hidden_size=96, use_sliding_window=True, sliding_window=17, max_window_layers=1)),
    "qwen 3": (40, dict(BASE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", rope_theta=1000000.0)),
    "gemma 3": (100, dict(BASE, architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", tie_word_embeddings=True,
                          sliding_window=24, sliding_window_pattern=2, query_pre_attn_scalar=20,
                          rope_theta=1000000.0, rope_local_base_freq=10000.0, rms_norm_eps=1e-6,
                          hidden_activation="gelu_pytorch_tanh", rope_scaling={"rope_type": "linear", "factor": 8.0})),
    "gemma 3 as converted": (40, dict(BASE, architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", num_hidden_layers=7,
                                      tie_word_embeddings=True, sliding_window=24, query_pre_attn_scalar=32,
                                      rope_theta=1000000.0, rope_local_base_freq=10000.0, rms_norm_eps=1e-6,
                                      hidden_activation="gelu_pytorch_tanh")),
    "phi 3": (100, dict(PHI, sliding_window=24)),
    "phi 3 partial": (40, dict(PHI, partial_rotary_factor=0.75)),
    "phi 3 long": (100, dict(PHI, rope_scaling=LONGROPE)),
    "phi 3 short": (60, dict(PHI, rope_scaling=LONGROPE)),
}


def value_of(name, shape):
    """Matrices of unit gain, norms around 1 (of Gemma, around 0), biases and the embedding as they may be."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    n = int(np.prod(shape))
    x = (np.arange(n, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    u = ((x >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) / np.float32(1 << 23)  # [-1, 1)
    return u.reshape(shape)


def weight_of(name, shape, family):
    u = value_of(name, shape)
    if len(shape) == 1:
        if name.endswith(".bias"):
            return u * np.float32(0.25)
        return u * np.float32(0.25) + np.float32(0 if family == "gemma3_text" else 1)
    if name == "model.embed_tokens.weight":
        return u * np.float32(0.5)
    return u * np.float32(np.sqrt(np.float32(3) / np.float32(shape[1])))


def golden(name, length, config):
    config = {k: v for k, v in config.items() if v is not None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager").float().eval()
    state = {}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        state[key] = torch.from_numpy(weight_of(key, tuple(tensor.shape), config["model_type"]))
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    seed = sum(name.encode())
    tokens = [(seed + i * 7919 + i * i * 31) % VOCAB for i in range(length)]
    positions = [0, 1, length // 3, length - 2, length - 1]
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True)
        h = out.hidden_states[-1][0]  # after the last norm
        magnitude = float((h.abs() @ model.get_output_embeddings().weight.abs().T).max())
        logits = out.logits[0].double().numpy()
    columns = list(range(0, VOCAB, 19))
    return {"name": name, "config": config, "tokens": tokens, "magnitude": float(f"{magnitude:.4g}"),
            "tensors": [[k, list(v.shape)] for k, v in state.items()], "columns": columns, "positions": positions,
            "logits": [[float(f"{logits[p, c]:.8g}") for c in columns] for p in positions]}


torch.manual_seed(0)
with open(sys.argv[1], "w") as out:
    lines = [json.dumps(golden(name, *case)) for name, case in CASES.items()]
    out.write("[\n" + ",\n".join(lines) + "\n]\n")
