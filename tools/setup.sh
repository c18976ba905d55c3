#!/usr/bin/env bash
# Installs, with apt, the packages that building and testing Quire need and this machine lacks. Safe to run again.
. "$(dirname "$0")/common.sh"
install_packages
