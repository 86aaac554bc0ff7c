#!/usr/bin/env bash
# Sets up .venv and makes the default forecast: scripts/quickstart.sh [FOLDER]
# FOLDER receives the forecast, its scores and its page (default: a new one in runs/).
# environment.sh names the variables that steer the set-up.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

folder=${1:-$root/runs/$(date -u +%Y-%m-%dT%H%M%S)}
timed "environment" make_environment "[grib]"
mkdir -p "$folder"
cd "$folder"
timed "forecast" "$venv/bin/ladcast" forecast
echo "written to $PWD"
