#!/usr/bin/env bash
# Puts the default model under ${XDG_CACHE_HOME:-~/.cache}/quire. Does nothing if it is there.
. "$(dirname "$0")/common.sh"
fetch_model
echo "$MODEL"
