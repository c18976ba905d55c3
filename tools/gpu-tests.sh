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
failed=0
for program in "${programs[@]}"; do
  log="$logs/$program${tool:+-$tool}.log"
  start=$SECONDS
  "${run[@]}" "$here/bin/test_$program" --gtest_brief=1 --gtest_filter="$filter" >"$log" 2>&1
  status=$?
  printf '%-10s %-10s exit %d, %d s: %s\n' "$program" "${tool:-tests}" "$status" "$((SECONDS - start))" \
    "$(grep -E '^\[  (PASSED|FAILED|SKIPPED) +\]|ERROR SUMMARY' "$log" | tr '\n' ' ' | cut -c1-300)"
  if [ "$status" -ne 0 ]; then
    failed=1
    grep -E 'Failure|FAILED|Error|error|=========' "$log" | head -40
  fi
done
[ "$failed" = 0 ] && echo "all passed" || echo "SOME FAILED; logs are in $logs"
exit "$failed"
