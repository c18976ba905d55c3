#!/usr/bin/env bash
# Puts the text that perplexity is measured on under ${XDG_CACHE_HOME:-~/.cache}/quire. Does nothing if it is there.
. "$(dirname "$0")/common.sh"
fetch_text
echo "$TEXT"
