#!/usr/bin/env bash
# Makes the data of the study of position encodings, then trains and measures: scripts/position_study.sh [WORKERS] [OPTION...]
# WORKERS processes (by default 5 for each GPU, else 1) share the cells; the options go to position_study.py, such as
# --minutes 9. Needs the extra [simulate] for the data. The same command goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
workers=$((gpus ? 5 * gpus : 1))
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    workers=$1
    shift
fi

mkdir -p data/nature runs/position_study
ladcast-data simulate data/nature.zarr --segments 15 --spinup-days 45
ladcast-data encode data/nature.zarr ladcast/pretrained/nature-t31 data/nature/latents.zarr
running=()
for ((worker = 0; worker < workers; worker++)); do
    ((gpus)) && export CUDA_VISIBLE_DEVICES=$((worker % gpus))
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} python3 scripts/position_study.py configs/study/positions.yaml "$@" \
        >"runs/position_study/worker$worker.txt" 2>&1 &
    running[worker]=$!
done
failed=0
for process in "${running[@]}"; do
    wait "$process" || failed=1
done
tail -qn 1 runs/position_study/worker*.txt
[ ! -f runs/position_study/table.md ] || cat runs/position_study/table.md
exit $failed
