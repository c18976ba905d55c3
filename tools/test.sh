#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests: all of them optimised, then the fast ones under the address and
# undefined-behaviour sanitizers, with warnings as errors. Safe to run again.
#   tools/test.sh            everything (what CI runs)
#   tools/test.sh --quick    the optimised build only
. "$(dirname "$0")/common.sh"
install_packages
# Tests that need the real model or text skip, and say so, without them. In CI that would hide a failure.
(fetch_model && fetch_text) || [ -z "${CI:-}" ] || die "CI must have the model and the text"

# Where there is a CUDA compiler, device code is built, for one architecture, and a warning (ptxas' C75xx: a tensor-core
# pipeline it had to serialise) fails. Tests that need a GPU skip, and say so, without one.
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
  CUDAARCHS="${CUDAARCHS:-90a-real}" CUDAFLAGS="${CUDAFLAGS:--Werror=all-warnings}" build cuda test_kernels
fi

# The optimised tests use the machine's threads themselves.
build release
say "tests (release)"
ctest --preset release
if [ "${1:-}" != --quick ]; then
  build asan
  say "tests (asan)"
  # The real model's tests have run optimised; under the sanitizers they would take longer than everything else together. Its
  # first two layers run here (CutModel), and so do the fuzz targets' short tests (Fuzz).
  # What the line editor keeps for itself until the program ends is not ours.
  export LSAN_OPTIONS="suppressions=$ROOT/tools/lsan.supp:print_suppressions=0"
  ctest --preset asan -j "$(nproc)" -E 'RealModel|GoldenGreedy'
fi
say "all tests passed"
