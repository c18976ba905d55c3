#!/usr/bin/env python3
"""Writes tests/models/golden_smollm2_tokens.json: token ids of varied text by HuggingFace's `tokenizers`.

    pip install tokenizers gguf
    tools/golden_tokens.py SmolLM2-135M-Instruct.Q4_1.gguf tests/models/golden_smollm2_tokens.json

The tokenizer is built from the file's own vocabulary and merges, with the pre-tokenizers the model was trained with. Also in the
file: the pieces into which the regexes of other model families cut the same text.
"""
import json
import sys

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

TEXTS = [
    "", " ", "  ", "a", "Hello, world!", "The quick brown fox jumps over the lazy dog.",
    "I'm sure you'll say they've won; it's what we'd do, isn't it? I'M SURE YOU'LL",
    "naïve café déjà-vu Ångström Straße œuvre Łódź ŽIŽEK",
    "12345 3.14159 1,000,000 2024-11-24T17:15:00Z 0x1F 1e-9", "a1b2c3 v1.2.3-rc4 x86_64", " 7", "7 7  77",
    "٠١٢٣٤٥٦٧٨٩ ०१२३ ๓๔ ½ ¾ ² ³ Ⅷ ⅻ ① ㊿ 𝟘𝟙", "一二三 〇 ４２",
    "line\nline\n\nline\n\n\n\nline", "dos\r\nfile\r\n\r\nend\r", "\n", "\r\n", "\n ", " \n", "\t", "\t\tif x:\n\t\t\treturn y\n",
    "a b", "a  b", "a   b", "a    b" + " " * 40 + "c", " " * 8, " " * 17 + "x", " leading", "trailing ", "  two", "trailing  \n",
    "\n" * 12, " \n \n  \n", "no\u00a0break \u00a0 space", "en\u2002em\u2003thin\u2009hair\u200aideographic\u3000end",
    "zero\u200bwidth\u200cnon\u200djoin\ufeffbom", "mongolian\u180evowel separator", "next\u0085line \u2028 \u2029 sep \x0b\x0c end",
    "e\u0301 a\u030a o\u0308\u0323 n\u0303 \u0301alone", "Z̷̢̛͙a̸l̵g̶o̴", "क्षेत्र हिन्दी में", "தமிழ் ภาษาไทย ကြေးမုံ",
    "שלום עולם! مرحبا بالعالم، كيف الحال؟", "\u202eRTL override\u202c and \u2066isolates\u2069", "русский текст, українська ї",
    "Ελληνικά ΣΊΣΥΦΟΣ ς", "日本語のテキスト、カタカナ。ひらがな", "中文字符，没有空格。繁體", "한국어 텍스트 ㄱㄴㄷ", "ﬁ ﬀ ǅ ŉ İıſ K Å",
    "😀", "😀😃 😄", "👨‍👩‍👧‍👦 family", "👍🏽 👩🏿‍🚀 🏳️‍🌈", "🇫🇷🇯🇵 flags", "1️⃣ 2️⃣ ☎️ ❤️", "🧑‍💻 writes code 🚀🚀🚀!!!",
    "∑_{i=1}^{n} x_i² ≤ ∫₀^∞ e^{-x²}dx ≈ √π/2 ∀ε>0 ∃δ", "«quotes» “double” ‘single’ „low“ … — – ‐ ‑", "€100 £5 ¥900 ₿1 ₹10 $3.50 50% ‰",
    "𝕳𝖊𝖑𝖑𝖔 𝒲ℴ𝓇𝓁𝒹 𐍈𐌰𐌹 𓀀𓂀 𠜎𠜱", "\U000e0041\U000e007f tags \ue000 private \uffff \U0010ffff",
    "int main(int argc, char** argv) {\n    for (int i = 0; i < 10; ++i) {\n        printf(\"%d\\n\", i);  // loop\n    }\n    return 0;\n}\n",
    "def f(x):\n    '''doc'''\n    return {k: v for k, v in x.items() if v != 0}\n\n\nclass A(B):\n\tpass",
    "SELECT * FROM t WHERE a>=1 AND b<>'x''y'; -- comment", "<div class=\"a\"><!-- c --><br/>&nbsp;</div>", "https://example.org/a/b?q=1&r=%20#frag",
    "user.name+tag@mail.example.co.uk", "C:\\Windows\\System32\\..\\x", "!!!???...;;;:::---___===+++***", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "'s't're've'm'll'd 'S 'T x's '", "don’t can’t", "CamelCaseWordsAndSCREAMING_SNAKE", "antidisestablishmentarianism" * 3,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ab" * 60, "=" * 80, "-" * 33 + "\n" + "*" * 7,
    "<|im_start|>user\nHi<|im_end|>\n", "x<|im_start|>y", "<|im_start|><|im_start|>", "<|im_start|", "<|im_<|im_end|>start|>",
    "<repo_name>a<reponame>b<|endoftext|>", " <|im_end|> ", "<file_sep><filename>a.py<gh_stars>5<empty_output>",
    "The\u00ad soft\u00adhyphen", "tab\tand  space \t mixed \t\n\t", "Ĉ Ġ Ċ Ġword the letters of the byte alphabet",
]


def build(path):
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    unknown = tokens[fields["tokenizer.ggml.unknown_token_id"].contents()]
    t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(tokens)}, merges=merges, unk_token=unknown))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s, k in zip(tokens, kinds) if k == 3])
    return t


def pieces(pattern, text):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return [p for p, _ in split.pre_tokenize_str(text)]


def main():
    t = build(sys.argv[1])
    cases = [{"text": s, "ids": t.encode(s).ids} for s in TEXTS]
    splits = {name: [pieces(pattern, s) for s in TEXTS] for name, pattern in
              (("gpt-2", GPT2), ("llama3", LLAMA3), ("qwen2", QWEN2))}
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write('{"cases": [\n')
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write('\n],\n"pieces": {\n')
        f.write(",\n".join(json.dumps(k) + ": [\n" + ",\n".join(json.dumps(p) for p in v) + "\n]" for k, v in splits.items()))
        f.write("\n}}\n")
    print(f"{len(cases)} texts, {sum(len(c['ids']) for c in cases)} tokens")


if __name__ == "__main__":
    main()
