#!/usr/bin/env python3
"""Writes tests/models/golden_sentencepiece.json: small vocabularies trained by the Python package `sentencepiece` (BPE with and without
rules of normalization, Unigram, words, characters), and the ids that it gives for texts chosen to be hard. The vocabularies are spelled
as GGUF files spell them (tokens, scores, types).

usage: tools/golden_sentencepiece.py TEXT_FILE > tests/models/golden_sentencepiece.json
"""
import base64
import io
import json
import sys
import tempfile

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as proto

SPACE = "\u2581"
# Rules of normalization: to one letter, to several, of several, to nothing, to a space, and one that is the beginning of another.
RULES = {"\u00e9": "e", "\u2460": "1", "\ufb03": "ffi", "e\u0301": "e", "\u200b": "", "\u3000": " ", "ab": "x", "abc": "y"}
TEXTS = [
    "", " ", "  ", "a", " a", "Hello world", "Hello  world ", " leading", "trailing   ", "\n", "\t\ttabs\nand\r\nlines",
    "The capital of France is Paris.", "theatre therefore the then", "1234567890 3.14159 -17", "don't can't we'll",
    "naïve café Ünïcödé", "日本語のテキスト", "emoji 🙂🙃 end", "zero\u200bwidth", "a" * 40, "of" * 25, "((()))[[]]{}<>",
    "<|user|>hi<|end|>", "<|user|> <|user|>", "x<|end|", "<0x41> <s> </s> <unk>", SPACE + "escaped" + SPACE, "e\u0301 e\u0301",
    "int main() { return 0; }", "http://example.org/a?b=c&d=e", "ALL CAPS TEXT", "mixed日本CASEé🙂1",
    "\u2460\ufb03ce\u3000\u3000abcab \u200b end\u3000", "  two  spaces  and\u200b ", "\u200b", "\u3000<|user|> <|end|>\u00e9",
]


def train(path, **options):
    model = io.BytesIO()
    defaults = dict(model_type="bpe", vocab_size=700, normalization_rule_name="identity", remove_extra_whitespaces=False)
    spm.SentencePieceTrainer.train(
        input=path, model_writer=model, character_coverage=0.999, max_sentence_length=100000, num_threads=1, minloglevel=2,
        **{**defaults, **options})
    return proto.ModelProto.FromString(model.getvalue())


def describe(model):
    processor = spm.SentencePieceProcessor(model_proto=model.SerializeToString())
    return {
        "tokens": [p.piece for p in model.pieces],
        "scores": [p.score for p in model.pieces],
        "types": [p.type for p in model.pieces],
        "model_type": model.trainer_spec.model_type,
        "charsmap": base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode(),
        "remove_extra_whitespaces": model.normalizer_spec.remove_extra_whitespaces,
        "unknown": processor.unk_id(),
        "add_space_prefix": model.normalizer_spec.add_dummy_prefix,
        "cases": [{"text": text, "ids": processor.encode(text)} for text in TEXTS],
    }


def main():
    path = sys.argv[1]
    bytes_model = train(path, byte_fallback=True, user_defined_symbols=["<|user|>", "<|end|>", SPACE * 3])
    # Tokens that take part in merges but are never given out: some of the longer ones.
    for piece in [p for p in bytes_model.pieces if p.type == 1 and len(p.piece) > 3][::5]:
        piece.type = 5
    plain = train(path, add_dummy_prefix=False)
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for before, after in RULES.items():
            rules.write("\t".join(" ".join(f"{ord(c):x}" for c in text) for text in (before, after)) + "\n")
        rules.flush()
        ruled = dict(normalization_rule_name="", normalization_rule_tsv=rules.name, user_defined_symbols=["<|user|>", "<|end|>"])
        models = {
            "bytes": bytes_model, "plain": plain,
            "rules": train(path, remove_extra_whitespaces=True, byte_fallback=True, **ruled),
            "rules_keep_spaces": train(path, vocab_size=300, **ruled),
            "unigram": train(path, model_type="unigram", vocab_size=400, remove_extra_whitespaces=True, **ruled),
            "unigram_bytes": train(path, model_type="unigram", vocab_size=600, byte_fallback=True),
            "word": train(path, model_type="word", vocab_size=300),
            "char": train(path, model_type="char", vocab_size=60),
        }
    print(json.dumps({name: describe(model) for name, model in models.items()}, ensure_ascii=True))


main()
