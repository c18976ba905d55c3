#!/usr/bin/env bash
# Installs what is missing, builds, gets the default model and opens the chat. Safe to run again; arguments go to `quire chat`.
. "$(dirname "$0")/common.sh"
install_packages
build release quire
fetch_model
exec build/release/bin/quire chat "$@"
