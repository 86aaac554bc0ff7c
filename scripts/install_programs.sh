#!/usr/bin/env bash
# Installs what some tests run beside ladcast, where it is missing: Chromium, in which the page is looked at, cdo and nco,
# which read exports. Debian or Ubuntu, as root.
set -euo pipefail

missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium fonts-dejavu-core)
command -v cdo >/dev/null || missing+=(cdo)
command -v ncks >/dev/null || missing+=(nco)
((${#missing[@]})) || exit 0
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]} takes root and apt-get: tests that need them will be skipped." >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
timeout 60 apt-get -qq update
timeout 400 apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
