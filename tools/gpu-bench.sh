#!/usr/bin/env bash
# What docs/benchmarks.md shows of a GPU: models of random weights (nothing is fetched), by batch, by depth, and op by
# op. Needs the program alone: runs in a checkout after `cmake --build build/cuda`, or in a bundle (tools/bundle.sh).
#   gpu-bench.sh [--config NAME] [--repetitions N] [--device cuda:N] [SCHEME...]
#     SCHEME     f16 w8a8kv8 w4a8kv4 w4a16kv8 w8a8kv2 (default: all, half a minute each on an H200)
#     --config   llama-3-8b (default), or another that `quire bench --dummy` takes
#     QUIRE      the program; default: bin/quire beside this script, or build/cuda/bin/quire
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
config=llama-3-8b repetitions=2 device=cuda schemes=()
while [ $# -gt 0 ]; do
  case "$1" in
    --config) config="$2"; shift ;;
    --repetitions) repetitions="$2"; shift ;;
    --device) device="$2"; shift ;;
    -*) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    *) schemes+=("$1") ;;
  esac
  shift
done
[ ${#schemes[@]} -gt 0 ] || schemes=(f16 w8a8kv8 w4a8kv4 w4a16kv8 w8a8kv2)
quire="${QUIRE:-$here/bin/quire}"
[ -x "$quire" ] || quire="$here/../build/cuda/bin/quire"
[ -x "$quire" ] || { echo "error: there is no $quire; build it, or set QUIRE" >&2; exit 1; }

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || true
"$quire" --version
bench() {
  echo
  echo "\$ quire bench $*"
  "$quire" bench -q --device "$device" --dummy "$config" "$@"
}
for scheme in "${schemes[@]}"; do
  # 1,024 tokens in, 256 out: prompts, then generation by the number of sequences.
  bench --scheme "$scheme" -b 2048 -p 1024 -n 0 -npl 1,16 -r "$repetitions"
  bench --scheme "$scheme" -p 0 -n 256 -d 1024 -npl 1,16,64,256 -r "$repetitions"
  bench --scheme "$scheme" -p 0 -n 64 -d 32768,131072 -r "$repetitions"
  bench --scheme "$scheme" -p 0 -n 32 -d 1024 -npl 1,64 -r 1 --profile
done
