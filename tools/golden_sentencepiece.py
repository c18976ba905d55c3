#!/usr/bin/env python3
"""Writes tests/models/golden_sentencepiece.json: two small vocabularies trained by the Python package `sentencepiece` (BPE), and the ids
that it gives for texts chosen to be hard. The vocabularies are spelled as GGUF files spell them (tokens, scores, types).

usage: tools/golden_sentencepiece.py TEXT_FILE > tests/models/golden_sentencepiece.json
"""
import io
import json
import sys

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as proto

SPACE = "\u2581"
TEXTS = [
    "", " ", "  ", "a", " a", "Hello world", "Hello  world ", " leading", "trailing   ", "\n", "\t\ttabs\nand\r\nlines",
    "The capital of France is Paris.", "theatre therefore the then", "1234567890 3.14159 -17", "don't can't we'll",
    "naïve café Ünïcödé", "日本語のテキスト", "emoji 🙂🙃 end", "zero\u200bwidth", "a" * 40, "of" * 25, "((()))[[]]{}<>",
    "<|user|>hi<|end|>", "<|user|> <|user|>", "x<|end|", "<0x41> <s> </s> <unk>", SPACE + "escaped" + SPACE, "e\u0301 e\u0301",
    "int main() { return 0; }", "http://example.org/a?b=c&d=e", "ALL CAPS TEXT", "mixed日本CASEé🙂1",
]


def train(path, **options):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        input=path, model_writer=model, model_type="bpe", vocab_size=700, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=0.999, max_sentence_length=100000, num_threads=1,
        minloglevel=2, **options)
    return proto.ModelProto.FromString(model.getvalue())


def describe(model):
    processor = spm.SentencePieceProcessor(model_proto=model.SerializeToString())
    return {
        "tokens": [p.piece for p in model.pieces],
        "scores": [p.score for p in model.pieces],
        "types": [p.type for p in model.pieces],
        "unknown": processor.unk_id(),
        "add_space_prefix": model.normalizer_spec.add_dummy_prefix,
        "cases": [{"text": text, "ids": processor.encode(text)} for text in TEXTS],
        "decoded": [processor.decode(processor.encode(text)) for text in TEXTS],
    }


def main():
    path = sys.argv[1]
    bytes_model = train(path, byte_fallback=True, user_defined_symbols=["<|user|>", "<|end|>", SPACE * 3])
    # Tokens that take part in merges but are never given out: some of the longer ones.
    for piece in [p for p in bytes_model.pieces if p.type == 1 and len(p.piece) > 3][::5]:
        piece.type = 5
    plain = train(path, add_dummy_prefix=False)
    print(json.dumps({"bytes": describe(bytes_model), "plain": describe(plain)}, ensure_ascii=True))


main()
