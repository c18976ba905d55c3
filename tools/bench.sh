#!/usr/bin/env bash
# The CPU section of docs/benchmarks.md, as Markdown on standard output. Wants a machine that does nothing else.
#   tools/bench.sh [THREADS] [REPETITIONS]      (default: all cores, 5)
. "$(dirname "$0")/common.sh"
THREADS="${1:-$(nproc)}"
REPETITIONS="${2:-5}"

install_packages
build release quire
fetch_model
QUIRE="$ROOT/build/release/bin/quire"
bench() { "$QUIRE" bench --device cpu --model "$MODEL" --threads "$THREADS" --repetitions "$REPETITIONS" "$@"; }
# One line for each scheme and cache, one column for each test: median, and deviation.
table() {
  bench -o jsonl "$@" | python3 -c '
import json, sys
tests, lines = [], {}
for text in sys.stdin:
    r = json.loads(text)
    print("{scheme} {kv} {test}: {median_ts:.1f}".format(**r), file=sys.stderr)
    if r["test"] not in tests:
        tests.append(r["test"])
    line = lines.setdefault((r["scheme"], r["kv"]), {"size": r["size"], "peak": 0})
    line[r["test"]] = "{median_ts:.0f} ± {stddev_ts:.0f}".format(**r)
    line["peak"] = max(line["peak"], r["memory_peak"])
print("| scheme | cache | " + " | ".join(tests) + " | weights, MiB | peak, MiB |")
print("|---|---|" + "---|" * (len(tests) + 2))
for (scheme, kv), line in lines.items():
    cells = [line[t] for t in tests] + ["%.0f" % (line[k] / 2**20) for k in ("size", "peak")]
    print(f"| `{scheme}` | `{kv}` | " + " | ".join(cells) + " |")
'
}

echo "$(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $THREADS threads, $REPETITIONS repetitions."
echo
echo '```'
"$QUIRE" inspect --machine --threads "$THREADS"
echo '```'
echo
echo "### Tokens a second"
echo
echo "Median of $REPETITIONS ± deviation; pp: prompt, tg: generation, @ d: after so many tokens. Peak: most memory resident, program and all."
echo
table --scheme f16,w8a8,w4a8,own --kv f16,kv8,kv4,kv2 -d 0,2048
echo
echo "### One step of generation, op by op"
echo
say "profile"
bench --scheme w8a8 --kv kv8 -p 0 -n 64 -d 2048 --profile | sed '1,/^$/d'
