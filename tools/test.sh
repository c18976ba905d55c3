#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests: all of them optimised, then the fast ones under the address and
# undefined-behaviour sanitizers, with warnings as errors. Safe to run again.
#   tools/test.sh            everything (what CI runs)
#   tools/test.sh --quick    the optimised build only
. "$(dirname "$0")/common.sh"
install_packages
# Tests that need the real model or text skip, and say so, without them. In CI that would hide a failure.
(fetch_model && fetch_text) || [ -z "${CI:-}" ] || die "CI must have the model and the text"

# Where there is a CUDA compiler, device code is built, for one architecture, and a warning fails; so does ptxas' C75xx (a
# tensor-core pipeline it had to serialise), which it only calls information, and machine code that gives up the operands of
# such a pipeline too early. Tests that need a GPU skip, and say so, without one.
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
  log="$(mktemp)"
  CUDAARCHS="${CUDAARCHS:-90a-real}" CUDAFLAGS="${CUDAFLAGS:--Werror=all-warnings}" build cuda test_kernels 2>&1 | tee "$log"
  ! grep -E '\(C75[0-9]{2}\)' "$log" || die "ptxas had to serialise tensor-core operations"
  rm "$log"
  PATH="$PATH:/usr/local/cuda/bin:$DISASSEMBLERS"
  if (fetch_disassemblers); then
    say "machine code of tensor-core pipelines"
    for source in $(grep -lr --include='*.cu' wgmma.cuh kernels); do
      tools/check_sass.py "build/cuda/CMakeFiles/quire_kernels.dir/$source.o"
    done
  else
    [ -z "${CI:-}" ] || die "CI must have cuobjdump and nvdisasm"
    say "no cuobjdump and nvdisasm here: machine code is not checked"
  fi
fi

# Old processors, emulated: one without AVX, where an instruction of a wider path is a fault, and one with AVX2 but no AVX-512.
# Some tests of the kernels, and the answer of the real model, which is the same everywhere.
run_on_old_processors() {
  local bin=build/release/bin cpu answer expected
  local -a ask=("$bin/quire" generate --quiet --prompt "The capital of France is" --max-tokens 3 --context 64)
  if ! command -v qemu-x86_64 >/dev/null; then
    say "no qemu-x86_64 here: old processors are not tried"
    return
  fi
  [ -s "$MODEL" ] && expected="$("${ask[@]}" --model "$MODEL")"
  # Haswell without what the emulator has not: it would say so for every thread.
  for cpu in Nehalem Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-rtm,-invpcid; do
    say "tests (emulated ${cpu%%,*})"
    qemu-x86_64 -cpu "$cpu" "$bin/test_kernels" --gtest_brief=1 \
      --gtest_filter='Matmul.RegularShapes*:AttentionSealed.*:Glu.*:ChooseIsa.*'
    [ -s "$MODEL" ] || continue
    answer="$(qemu-x86_64 -cpu "$cpu" "${ask[@]}" --model "$MODEL" --threads 1)"
    [ "$answer" = "$expected" ] || die "on ${cpu%%,*} the model says '$answer', here '$expected'"
  done
  # The widest path of each is what the probe finds: AVX2 is there on one and refused on the other.
  QUIRE_ISA=avx2 qemu-x86_64 -cpu "$cpu" "$bin/test_kernels" --gtest_brief=1 --gtest_filter='Glu.EveryOutputFormat'
  ! QUIRE_ISA=avx2 qemu-x86_64 -cpu Nehalem "$bin/test_kernels" --gtest_filter='Glu.EveryOutputFormat' >/dev/null 2>&1 ||
    die "QUIRE_ISA=avx2 was taken on a processor without AVX2"
}

# The optimised tests use the machine's threads themselves.
build release
say "tests (release)"
ctest --preset release
run_on_old_processors
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
