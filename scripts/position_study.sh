#!/usr/bin/env bash
# Makes the data of the study of position encodings, then trains and measures: scripts/position_study.sh [WORKERS] [OPTION...]
# WORKERS processes (by default 5 for each GPU, else 1) share the cells; the options go to position_study.py, such as
# --minutes 9. Needs the extra [simulate] for the data. The same command goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
workers=${1:-$((gpus ? 5 * gpus : 1))}
shift || true

mkdir -p data/nature runs/position_study
ladcast-data simulate data/nature.zarr --segments 15 --spinup-days 45
ladcast-data encode data/nature.zarr ladcast/pretrained/nature-t31 data/nature/latents.zarr
for ((worker = 0; worker < workers; worker++)); do
    ((gpus)) && export CUDA_VISIBLE_DEVICES=$((worker % gpus))
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} python3 scripts/position_study.py configs/study/positions.yaml "$@" \
        >"runs/position_study/worker$worker.txt" 2>&1 &
done
wait
tail -qn 1 runs/position_study/worker*.txt
[ ! -f runs/position_study/table.md ] || cat runs/position_study/table.md
