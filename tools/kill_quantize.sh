#!/usr/bin/env bash
# Kills `quire quantize` with SIGKILL at ten random moments, one run going on where the one before was killed, and checks that no
# directory that loads is there before it is finished, and that the bytes in the end are those of a run that was not disturbed.
#   tools/kill_quantize.sh [KILLS] [SEED]
. "$(dirname "$0")/common.sh"
KILLS="${1:-10}"
RANDOM="${2:-1}"
SCHEME=w4a8kv8

install_packages
build release quire
fetch_model
QUIRE="$ROOT/build/release/bin/quire"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT

# One thread and small files: more moments to be killed in, and more files to go on with.
QUANTIZE=("$QUIRE" quantize --quiet --model "$MODEL" --scheme "$SCHEME" --threads 1 --shard-size 8M --output)
loads() { "$QUIRE" generate --quiet --model "$1" --prompt x --max-tokens 1 >/dev/null 2>&1; }

start="$(date +%s%N)"
"${QUANTIZE[@]}" "$WORK/whole" >/dev/null
milliseconds=$((($(date +%s%N) - start) / 1000000))
loads "$WORK/whole" || die "the undisturbed run left a directory that does not load"
say "an undisturbed run takes $milliseconds ms"

killed=0
rounds=0
finished=0
while [ "$killed" -lt "$KILLS" ]; do
  rounds=$((rounds + 1))
  [ "$rounds" -le $((KILLS * 20)) ] || die "only $killed of $KILLS runs could be killed"
  if [ "$finished" = 1 ]; then # killed too late: begin anew
    rm -rf "$WORK/killed" "$WORK/killed.partial"
    finished=0
  fi
  # A resumed run has less to do; a killed one of up to its whole time shows the moments at the end too.
  wait_ms=$((RANDOM % (milliseconds + 1)))
  "${QUANTIZE[@]}" "$WORK/killed" >/dev/null 2>&1 &
  pid=$!
  sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
  kill -KILL "$pid" 2>/dev/null || true
  status=0
  wait "$pid" 2>/dev/null || status=$?
  if [ "$status" = 0 ]; then
    finished=1
    diff -r "$WORK/whole" "$WORK/killed" >&2 || die "a run that was resumed and finished differs"
    continue
  fi
  [ "$status" = 137 ] || die "quantize ended with $status"
  killed=$((killed + 1))
  state="nothing"
  if [ -e "$WORK/killed.partial" ]; then
    files="$(find "$WORK/killed.partial" -name '*.safetensors' | wc -l)"
    state="$files finished files, $(du -sk "$WORK/killed.partial" | cut -f1) KiB, unfinished"
    ! loads "$WORK/killed.partial" || die "an unfinished directory loads"
  fi
  if [ -e "$WORK/killed" ]; then # only the very last moment leaves this: the directory is whole
    loads "$WORK/killed" || die "a directory got its name before it was whole"
    state="$state, whole"
  fi
  say "killed $killed of $KILLS after $wait_ms ms: $state"
done
"${QUANTIZE[@]}" "$WORK/killed" >/dev/null
[ ! -e "$WORK/killed.partial" ] || die "the unfinished directory was left behind"
diff -r "$WORK/whole" "$WORK/killed" >&2 || die "the resumed directory differs from the undisturbed one"
loads "$WORK/killed" || die "the resumed directory does not load"
say "the resumed directory equals the undisturbed one, byte for byte"
