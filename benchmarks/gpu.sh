#!/usr/bin/env bash
# Runs what needs an NVIDIA GPU, benchmarks and tests, each within a time limit, 21 minutes at most: benchmarks/gpu.sh [FOLDER]
# What they print goes to FOLDER (by default runs/gpu), a file each; the last line of each is shown.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-runs/gpu}
mkdir -p "$folder"

limited() {  # limited SECONDS NAME COMMAND...
    local limit=$1 name=$2
    shift 2
    timeout "$limit" "$@" >"$folder/$name.txt" 2>&1
    echo "$name: status $?, $(tail -n 1 "$folder/$name.txt")"
}

limited 100 networks python3 benchmarks/networks.py
limited 150 one_call python3 benchmarks/one_call.py
limited 180 one_call_1p6b python3 benchmarks/one_call.py --size 1p6b --calls 20
limited 150 streams python3 benchmarks/streams.py --device cuda
limited 180 training python3 benchmarks/training.py
OMP_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=2 limited 200 tests \
    python3 -m pytest -m gpu -n 8 -v --override-ini=addopts=--import-mode=importlib $(grep -rl "mark\.gpu" tests --include="test_*.py")
limited 60 scores python3 benchmarks/scores.py
limited 60 tracker python3 benchmarks/tracker.py
limited 60 members python3 benchmarks/members.py
limited 60 positions python3 benchmarks/positions.py --size tiny --batch 512
limited 60 positions_375m python3 benchmarks/positions.py --size 375m --batch 8
