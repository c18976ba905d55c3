#!/usr/bin/env bash
# Installs what is missing, builds, gets the default model and opens the chat. Safe to run again; arguments go to `quire chat`.
# The default is 8-bit weights, activations (by token and 64 channels) and cache; --scheme says otherwise.
. "$(dirname "$0")/common.sh"
install_packages
build release quire
fetch_model
exec build/release/bin/quire chat --scheme w8a8g64kv8 "$@"
