#!/usr/bin/env bash
# Feeds damaged and made-up input to everything that reads what others made, with libFuzzer under the address and
# undefined-behaviour sanitizers, and prints a table. Ends with 1 if anything was found. Needs clang (and its runtime:
# package libclang-rt-dev).
#   tools/fuzz.sh [--jobs N] [--no-build] [SECONDS [TARGET...]]     SECONDS each (default 60), N targets at a time
#   tools/fuzz.sh --build-only                                      for --no-build, also on another machine:
#                                                                   build/fuzz/bin and build/fuzz/seeds are all it needs
# What is found lies in build/fuzz/findings; the inputs that reached new code stay in build/fuzz/corpus for the next run.
. "$(dirname "$0")/common.sh"
OUT=build/fuzz
BINARY="$ROOT/$OUT/bin/fuzz"

jobs=1 build=1 run=1
while [ $# -gt 0 ]; do
  case "$1" in
    --jobs) jobs="${2:?--jobs takes a number}"; shift 2 ;;
    --no-build) build=0; shift ;;
    --build-only) run=0; shift ;;
    -*) die "unknown option $1; see the beginning of tools/fuzz.sh" ;;
    *) break ;;
  esac
done
seconds="${1:-60}"
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || die "'$seconds' is not a number of seconds"
[ $# -eq 0 ] || shift

if [ $build = 1 ]; then
  command -v clang++ >/dev/null || die "clang++ is missing: install clang and libclang-rt-dev"
  build fuzz fuzz
  # The libraries that a bare machine lacks, beside the program.
  ldd "$BINARY" | awk '/lib(fmt|pcre2-8|utf8proc|sentencepiece|edit|tinfo|bsd|md)\.so/ { print $3 }' | xargs -r cp -u -t "$(dirname "$BINARY")"
  rm -rf "$OUT/seeds"
  QUIRE_FUZZ_SEEDS="$OUT/seeds" "$BINARY" >/dev/null
fi
[ $run = 1 ] || exit 0
[ -x "$BINARY" ] && [ -d "$OUT/seeds" ] || die "$OUT/bin/fuzz or $OUT/seeds is missing; run tools/fuzz.sh --build-only first"
export LD_LIBRARY_PATH="$(dirname "$BINARY")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd "$OUT/seeds" && printf '%s\n' */ | tr -d /)
SCRATCH="$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/quire-fuzz.XXXXXX")"
trap 'rm -rf "$SCRATCH"' EXIT
mkdir -p "$OUT/findings" "$OUT/logs"

# One target; libFuzzer stops at the first thing it finds.
fuzz_one() {
  local target="$1"
  [ -d "$OUT/seeds/$target" ] || die "there is no target '$target'; there are $(cd "$OUT/seeds" && echo */)"
  mkdir -p "$OUT/corpus/$target" "$SCRATCH/$target"
  rm -f "$OUT/findings/$target-"*
  TMPDIR="$SCRATCH/$target" QUIRE_FUZZ="$target" "$BINARY" "$OUT/corpus/$target" "$OUT/seeds/$target" \
    -dict="$OUT/seeds/$target.dict" -artifact_prefix="$OUT/findings/$target-" -max_total_time="$seconds" \
    -max_len=65536 -timeout=25 -rss_limit_mb=3072 -malloc_limit_mb=1024 -print_final_stats=1 \
    >"$OUT/logs/$target" 2>&1 || true
}
export -f fuzz_one die
export OUT BINARY SCRATCH seconds
say "fuzzing ${#targets[@]} targets, $seconds s each, $jobs at a time"
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -euo pipefail -c 'fuzz_one {}'

failed=0
printf '%-16s %8s %12s %9s %9s %9s  %s\n' target seconds executions coverage features corpus findings
for target in "${targets[@]}"; do
  log="$OUT/logs/$target"
  found="$(find "$OUT/findings" -name "$target-*" ! -name '*-slow-unit-*' | wc -l)"
  stat() { awk -v key="stat::$1:" '$1 == key { print $2 }' "$log"; }
  last() { grep -oE "$1: [0-9]+" "$log" | tail -1 | grep -oE '[0-9]+' || echo 0; }
  executions="$(stat number_of_executed_units)"
  ran="$(grep -oE 'in [0-9]+ second' "$log" | grep -oE '[0-9]+' || echo '?')"
  # A run that neither found something nor reached its end did not work at all.
  [ "$found" -gt 0 ] || grep -q '^Done ' "$log" || found=broken
  [ "$found" = 0 ] || failed=1
  printf '%-16s %8s %12s %9s %9s %9s  %s\n' "$target" "$ran" "${executions:-0}" "$(last cov)" "$(last ft)" \
    "$(find "$OUT/corpus/$target" -type f | wc -l)" "$found"
done
if [ $failed = 1 ]; then
  say "findings: $(find "$OUT/findings" -type f ! -name '*-slow-unit-*' | tr '\n' ' '), logs: $OUT/logs"
  say "again: QUIRE_FUZZ=TARGET $OUT/bin/fuzz FINDING"
fi
exit $failed
