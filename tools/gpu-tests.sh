#!/usr/bin/env bash
# Runs the tests of a bundle (tools/bundle.sh) on this machine's GPU and prints a summary. Needs a driver and bash, nothing
# else.
#   gpu-tests.sh [--sanitize memcheck|racecheck|initcheck] [--filter GTEST_FILTER] [PROGRAM...]
#     PROGRAM   kernels kvcache models engine ...: default all; with --sanitize: kernels kvcache models
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tool= filter='*' programs=()
while [ $# -gt 0 ]; do
  case "$1" in
    --sanitize) tool="$2"; shift ;;
    --filter) filter="$2"; shift ;;
    *) programs+=("$1") ;;
  esac
  shift
done
export QUIRE_SOURCE_DIR="$here/source" QUIRE_BINARY="$here/bin/quire"
logs="${QUIRE_LOGS:-$here/logs}"
mkdir -p "$logs"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "nvidia-smi is not here"
"$here/bin/quire" --version
run=()
if [ -n "$tool" ]; then
  sanitizer="$(PATH="$PATH:/usr/local/cuda/bin" command -v compute-sanitizer)" || {
    echo "compute-sanitizer is not here: it comes with the CUDA Toolkit"
    exit 2
  }
  run=("$sanitizer" --tool "$tool" --error-exitcode 86 --print-limit 20)
  [ ${#programs[@]} -gt 0 ] || programs=(kernels kvcache models)
fi
if [ ${#programs[@]} -eq 0 ]; then
  for program in "$here"/bin/test_*; do programs+=("${program##*/test_}"); done
fi
# test_kernels takes longest and goes in parts, beside the others; what measures the GPU's memory comes last, alone.
run_tests() {  # PROGRAM PART PARTS
  local name="$1$([ "$3" = 1 ] || echo "-$2")${tool:+-$tool}" start=$SECONDS status=0 log
  log="$logs/$name.log"
  GTEST_SHARD_INDEX="$2" GTEST_TOTAL_SHARDS="$3" "${run[@]}" "$here/bin/test_$1" --gtest_brief=1 \
    --gtest_filter="$filter" >"$log" 2>&1 || status=$?
  printf '%-20s exit %d, %d s: %s\n' "$name" "$status" "$((SECONDS - start))" \
    "$(grep -E '^\[  (PASSED|FAILED|SKIPPED) +\]|ERROR SUMMARY' "$log" | tr '\n' ' ' | cut -c1-300)"
  [ "$status" = 0 ] || grep -E 'Failure|FAILED|Error|error|=========' "$log" | head -40
  return "$status"
}
failed=0 alone=() jobs=()
for program in "${programs[@]}"; do
  parts=1
  [ "$program" != kernels ] || parts=5
  if [ "$program" = engine ]; then
    alone=(engine)
    continue
  fi
  for ((part = 0; part < parts; ++part)); do
    run_tests "$program" "$part" "$parts" &
    jobs+=($!)
  done
done
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
for program in "${alone[@]}"; do run_tests "$program" 0 1 || failed=1; done
[ "$failed" = 0 ] && echo "all passed" || echo "SOME FAILED; logs are in $logs"
exit "$failed"
