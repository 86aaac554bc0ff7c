#!/usr/bin/env bash
# Makes the data of the study of position encodings, then trains and measures: scripts/position_study.sh [WORKERS] [OPTION...]
# WORKERS processes (by default 5 for each GPU, else one for each core) share the cells; the options go to studies/positions/study.py,
# such as --minutes 9. Without a GPU it is the small study of positions_cpu.yaml. Needs the extra [simulate] for the data.
# The same command goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
if ((gpus)); then
    study=positions segments=15 workers=$((5 * gpus)) threads=2
else
    study=positions_cpu segments=4 workers=$(nproc) threads=1
fi
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    workers=$1
    shift
fi

data=data/$study runs=runs/$study
mkdir -p "$data" "$runs"
ladcast-data simulate "$data/nature.zarr" --segments $segments --spinup-days 45
ladcast-data encode "$data/nature.zarr" ladcast/pretrained/nature-t31 "$data/latents.zarr"
running=()
for ((worker = 0; worker < workers; worker++)); do
    ((gpus)) && export CUDA_VISIBLE_DEVICES=$((worker % gpus))
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads} python3 -m studies.positions.study "studies/positions/$study.yaml" "$@" \
        >"$runs/worker$worker.txt" 2>&1 &
    running[worker]=$!
done
failed=0
for process in "${running[@]}"; do
    wait "$process" || failed=1
done
tail -qn 1 "$runs"/worker*.txt
[ ! -f "$runs/table.md" ] || cat "$runs/table.md"
exit $failed
