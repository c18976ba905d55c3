#!/usr/bin/env python3
"""Writes tests/models/golden_tokenizers.json: small trained tokenizers in the forms that families of models use, and the token ids
of varied text by HuggingFace's `tokenizers`.

    pip install tokenizers gguf
    tools/golden_tokenizers.py tests/models/golden_tokenizers.json
"""
import json
import sys

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from golden_tokens import LLAMA3, QWEN2, TEXTS

SPACE = "\u2581"
MORE = ["<s>Hello</s>", "<s> Hello </s> there", "[INST] What is 2+2? [/INST]", "<|user|>\nHi there<|end|>\n<|assistant|>\n",
        "a <|mask|> b", "x  <|mask|>y", "<|user|>   <|end|>", "<|end|><|end|>", "\u2581already\u2581escaped", " <|user|> ",
        "<0x41> is not a byte", "A\u030a\u0327 e\u0301 \u1112\u1161\u11ab \ufb01", "\u212b \u2126 \u0344", "\u2003<|user|>\u2003x", "<|word|>s <|word|> ",
        "a  a", "a\u2581\u2581a", "<|user|>\nHi<|end|>\n<|assistant|>\n"]
TEXT = TEXTS + MORE


def added(content, first, special=True, **flags):
    return {"id": first, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special} | flags


def train(model_type, **options):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if model_type == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        alphabet = []
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet,
                                  limit_alphabet=256 if model_type == "bytes" else 90, show_progress=False, **options)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)  # without the tokens that are added later
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    if model_type != "bytes":
        vocab[3:3] = [f"<0x{b:02X}>" for b in range(256)]
        model |= {"byte_fallback": True, "fuse_unk": True}
        model["merges"].insert(0, [SPACE, SPACE])
        vocab.append(SPACE * 2)  # as Gemma has them, see main()
    model["vocab"] = {token: i for i, token in enumerate(vocab)}
    return model


LLAMA_DECODER = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                                                  {"type": "ByteFallback"}, {"type": "Fuse"}]}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
LLAMA_STRIP = {"type": "Sequence", "decoders": LLAMA_DECODER["decoders"] + [STRIP]}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def bos(token):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [1], "tokens": [token]}}}


def split(regex):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}, BYTES]}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}


CHARS = {
    "llama 2": dict(normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, REPLACE]},
                    pre_tokenizer=None, decoder=LLAMA_STRIP, post_processor=bos("<s>")),
    "mistral": dict(normalizer=None, pre_tokenizer=metaspace("first", False), decoder=LLAMA_STRIP, post_processor=bos("<s>")),
    "gemma": dict(normalizer=REPLACE, decoder=LLAMA_DECODER, post_processor=bos("<s>"),
                  pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}),
    "metaspace": dict(normalizer=None, pre_tokenizer=metaspace("always", True), post_processor=None,
                      decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace("always", True)]}),
    "phi 3": dict(normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, REPLACE]},
                  pre_tokenizer=None, decoder=LLAMA_STRIP, post_processor=None),
}
LEVEL = {
    "qwen 2": dict(normalizer={"type": "NFC"}, pre_tokenizer=split(QWEN2), decoder=BYTES, post_processor=BYTES),
    "llama 3": dict(normalizer=None, pre_tokenizer=split(LLAMA3), decoder=BYTES,
                    post_processor={"type": "Sequence", "processors": [BYTES, bos("<s>")]}),
}


def main():
    out = []
    for kind, variants in (("chars", CHARS), ("bytes", LEVEL)):
        model = train(kind)
        n = len(model["vocab"])
        entry = {"model": model, "variants": []}
        for name, parts in variants.items():
            strips = name in ("phi 3", "qwen 2")
            tokens = [added("<unk>", 0), added("<s>", 1), added("</s>", 2), added("<|user|>", n, rstrip=strips),
                      added("<|assistant|>", n + 1, rstrip=strips), added("<|end|>", n + 2, rstrip=strips),
                      added("<|mask|>", n + 3, lstrip=strips), added("<|word|>", n + 4, special=False)]
            if name == "gemma":
                tokens.append(added(SPACE * 2, model["vocab"][SPACE * 2], special=False))
            this = dict(model, ignore_merges=name == "llama 3")
            document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "model": this} | parts
            tokenizer = Tokenizer.from_str(json.dumps(document))
            cases = []
            for text in TEXT:
                ids = tokenizer.encode(text).ids
                cases.append([text, ids, tokenizer.decode(ids, skip_special_tokens=False)])
            entry["variants"].append({"name": name, "ignore_merges": this["ignore_merges"], "added_tokens": tokens, "cases": cases} | parts)
        out.append(entry)
    with open(sys.argv[1], "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


main()
