#!/usr/bin/env bash
# The large campaign of docs/reliability.md: scripts/campaign.sh [FOLDER [ARGUMENTS OF campaign.py]]
# 500 kills over every command that writes, 50 pairs of equal commands at once, 1,000 spoilt files over every reader, and
# all bad options: some two hours of one core. --seconds 900 ends it early, with some of each. Run it after
# scripts/test.sh, which sets up .venv.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="${1:-$(mktemp -d)}"
shift || true
export PYTHONPATH="$root:$root/tests" OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE
exec "${LADCAST_PYTHON:-$root/.venv/bin/python}" "$root/tests/campaign/campaign.py" "$folder" \
    --kills 500 --pairs 50 --files 1000 --options 150 "$@"
