#!/usr/bin/env bash
# Installs Chromium, in which tests/view looks at the page: Debian or Ubuntu, as root.
set -euo pipefail

for program in chromium chromium-browser google-chrome; do
    if command -v $program >/dev/null; then
        exit
    fi
done
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Installing Chromium takes root and apt-get: the tests of the page in a browser will be skipped." >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
timeout 60 apt-get -qq update
timeout 300 apt-get -qq install --no-install-recommends chromium fonts-dejavu-core >/dev/null
