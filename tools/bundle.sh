#!/usr/bin/env bash
# Builds the `cuda` preset and puts quire, every test program and their shared libraries into one directory that runs on
# any x86-64 Linux with an NVIDIA driver, no package installed. Safe to run again.
#   tools/bundle.sh [DIRECTORY]            default build/bundle; what was there is replaced
#   CUDAARCHS=90a-real tools/bundle.sh     one architecture: quicker to build
. "$(dirname "$0")/common.sh"
out="${1:-build/bundle}"

build cuda
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/source"
# Programs look for libraries in ../lib (RPATH, cmake/cuda.cmake): all go there but the C library's own, which belong to the machine's kernel and loader.
libraries_of() { ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u; }
for program in build/cuda/bin/quire build/cuda/bin/test_* build/cuda/bin/bench_*; do
  [ -x "$program" ] || continue
  cp "$program" "$out/bin/"
  strip "$out/bin/$(basename "$program")"
done
libraries_of "$out"/bin/* | grep -vE '/(libc|libm|libpthread|librt|libdl|ld-linux[^/]*|libutil)\.so' |
  while read -r library; do cp -L "$library" "$out/lib/"; done
# Found through QUIRE_SOURCE_DIR by the tests that read the repository's files.
git ls-files -z base quant kernels kvcache models engine apps tests tools | xargs -0 cp --parents -t "$out/source"
cp tools/gpu-tests.sh tools/gpu-bench.sh "$out/"
tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
say "$out.tar.gz: $(du -h "$out.tar.gz" | cut -f1); unpack it there and run gpu-tests.sh"
