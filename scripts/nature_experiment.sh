#!/usr/bin/env bash
# Makes the embedded model from nothing, and scores it: scripts/nature_experiment.sh [STAGE...]
# Stages, by default all: nature test statistics autoencoder latents forecaster one_call evaluate race pack. Each stands alone, takes
# at most 25 minutes on an H200 and goes on where it stopped when the same command is run again.
#
#   DATA, RUNS  folders of data (100 GB) and of trained models (default: data/nature and runs)
#   MODEL       forecaster that is evaluated and packed (default: that of the stage one_call)
#   SEGMENTS    segments of 360 days of the nature run that is trained on (default: 60)
#
# Training runs on all GPUs of the machine, the nature run on the first one (needs the extra [simulate]).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${DATA:-data/nature} runs=${RUNS:-runs} segments=${SEGMENTS:-60}
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
device=$( ((gpus)) && echo cuda || echo cpu)
processes=$((gpus ? 4 * gpus : 1))
mkdir -p "$data" "$runs"
data=$(realpath "$data") runs=$(realpath "$runs")
model=${MODEL:-$runs/nature_one_call_2d/nature-t31}

starts=$(for ((k = 0; k < 40; k++)); do date -u -d "2101-01-11 + $((10 * k)) days" +%Y-%m-%dT00; done)

train() {  # train MODEL CONFIG [KEY=VALUE...]
    local launch=() model=$1 config=$2 words=()
    shift 2
    ((gpus < 2)) || launch=(torchrun --standalone --nproc-per-node "$gpus" --no-python)
    for word in "$@"; do words+=(--set "$word"); done
    "${launch[@]}" ladcast train "$model" "configs/train/$config.yaml" "${words[@]}"
}

evaluate() {  # evaluate NAME OPTION...: all starts, shared by several processes
    local name=$1 jobs=()
    shift
    for ((k = 1; k <= processes; k++)); do
        CUDA_VISIBLE_DEVICES=$((gpus ? k % gpus : 0)) ladcast evaluate "$data/test.zarr" --start 2101-01-11 --end 2102-02-05 \
            --every 240 --members 16 --days 10 --device $device --model "$model" \
            --sums "$runs/$name" --part $k/$processes "$@" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
    ladcast merge "$runs/$name" --first nature-t31 --output "$runs/$name.nc" --overwrite
}

for stage in ${@:-nature test statistics autoencoder latents forecaster one_call evaluate race pack}; do
    echo "== $stage"
    case $stage in
    nature) ladcast-data simulate "$data/nature.zarr" --segments "$segments" --spinup-days 60 --seed 100 ;;
    test) ladcast-data simulate "$data/test.zarr" --start 2101-01-01 --days 440 --seed 500 ;;
    statistics)
        ladcast-data statistics "$data/nature.zarr" "$data/statistics.json" --grid 64x33-south --stride 60
        ladcast-data climatology "$data/nature.zarr" "$data/climatology.nc" --grid 64x33-south --channels headline
        ;;
    autoencoder)
        train autoencoder nature_autoencoder "data.path=$data/nature.zarr" "statistics=$data/statistics.json" \
            "output=$runs/nature_autoencoder"
        ;;
    latents) ladcast-data encode "$data/nature.zarr" "$runs/nature_autoencoder/autoencoder" "$data/latents.zarr" ;;
    forecaster)
        train forecaster nature_forecaster "latents=$data/latents.zarr" "output=$runs/nature_forecaster" \
            "autoencoder=$runs/nature_autoencoder/autoencoder" "validation.store.path=$data/nature.zarr"
        ;;
    one_call)  # a day, then two, from the weights of the diffusion
        common=("latents=$data/latents.zarr" "autoencoder=$runs/nature_autoencoder/autoencoder" name=nature-t31
            "validation.store.path=$data/nature.zarr")
        train forecaster nature_one_call "${common[@]}" "initial=$runs/nature_forecaster/nature-t31" \
            "output=$runs/nature_one_call"
        train forecaster nature_one_call "${common[@]}" "initial=$runs/nature_one_call/nature-t31" \
            "output=$runs/nature_one_call_2d" objective.blocks=2 training.batch_size=128 training.steps=1450 \
            training.optimizer.learning_rate=2.5e-4 training.optimizer.muon_learning_rate=4e-4
        ;;
    evaluate) evaluate scores --climatology "$data/climatology.nc" --statistics default zonal_spectra ranks ;;
    race)  # the atmospheric model and the forecaster from the same analyses, which have an error
        from=(--from-store "$data/test.zarr" --analysis-error 0.1)
        for start in $starts; do from+=(--at "$start"); done
        ladcast-data simulate "$data/analyses.zarr" --members 2 --days 1 "${from[@]}"
        ladcast-data simulate "$data/race.zarr" --members 16 --days 10 --perturb 0.1 "${from[@]}"
        evaluate race --analyses "$data/analyses.zarr" --climatology "$data/climatology.nc"
        ladcast score "$data/race.zarr" --truth "$data/test.zarr" --name atmospheric-model --no-baselines \
            --sums "$runs/race" --workers "$(nproc)" --output "$runs/atmospheric_model.nc" --overwrite
        ladcast merge "$runs/race" --first nature-t31 --output "$runs/race.nc" --overwrite
        ;;
    pack)
        cp "$data/climatology.nc" "$model/climatology.nc"
        ladcast-data excerpt "$data/test.zarr" "$model" --starts 2101-01-11T00 --starts 2101-07-10T00 --overwrite
        du -sh "$model"
        ;;
    *)
        echo "Unknown stage '$stage'. Stages: nature test statistics autoencoder latents forecaster one_call evaluate race pack." >&2
        exit 1
        ;;
    esac
done
