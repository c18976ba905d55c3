#!/usr/bin/env bash
# The table of docs/accuracy.md: perplexity and KL divergence of every scheme and cache against the exact f32 path, on the default
# model and 40 chunks of English Wikipedia. Prints Markdown to standard output.
#   tools/accuracy.sh [CHUNKS]      (default 40; each row is a run of `quire perplexity`)
. "$(dirname "$0")/common.sh"
CHUNKS="${1:-40}"
BASE="$CACHE/f32-$CHUNKS.kl" # about 25 MB a chunk
WEIGHTS=(f32 f16 own w8a16 w8a8 w8a8g64 w4a16 w4a8 w6a16)
CACHES=(kvf16 kv8 kvfp8 k8v4 kv4 kv4row kv3row kv2 kv2row)

install_packages
build release quire
fetch_model
fetch_text

measure() { # SCHEME KV
  build/release/bin/quire perplexity --quiet --json --model "$MODEL" --file "$TEXT" --chunks "$CHUNKS" --kl-base "$BASE" \
    --scheme "$1" --kv "$2"
}

row() { # SCHEME KV: one line of the table
  say "scheme $1, cache $2"
  measure "$1" "$2" | python3 -c '
import json, sys
r = json.load(sys.stdin)
change = 100 * (r["perplexity"] / r["base_perplexity"] - 1)
print("| `{}` | `{}` | {:.4f} +- {:.2f} | {:+.2f} % | {:.5f} | {:.3f} | {:.2f} % |".format(
    *sys.argv[1:], r["perplexity"], r["uncertainty"], change, r["kl_mean"], r["kl_p99"], 100 * r["top1_agreement"]))
' "$1" "$2"
}

say "the reference: f32 weights, f16 cache"
build/release/bin/quire perplexity --quiet --json --model "$MODEL" --file "$TEXT" --chunks "$CHUNKS" --kl-base "$BASE" --kl-write \
  --scheme f32 --kv kvf16 >&2

echo "Each row: \`quire perplexity --file enwiki.txt --chunks $CHUNKS --kl-base f32.kl --scheme SCHEME --kv CACHE\`, after the same"
echo "with \`--kl-write --scheme f32\`. All of it: \`./tools/accuracy.sh\`."
echo
echo "| scheme | cache | perplexity | change | mean KL | 99 % KL | same top token |"
echo "|---|---|---|---|---|---|---|"
for scheme in "${WEIGHTS[@]}"; do row "$scheme" kvf16; done
for cache in "${CACHES[@]:1}"; do row f32 "$cache"; done
for both in "w8a8 kv8" "w8a8 kv4" "w8a8 kv2" "w8a8g64 kv4" "w4a8 kv4"; do
  # shellcheck disable=SC2086  # two words
  row $both
done
