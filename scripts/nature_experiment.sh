#!/usr/bin/env bash
# Makes a model of the nature run from nothing, and scores it: scripts/nature_experiment.sh [--size t31|1p5deg] [STAGE...]
# Each stage stands alone, and goes on where it stopped when the same command is run again.
#
#   t31     the embedded model, at 5.6 degrees; a stage takes at most 25 minutes on an H200. Stages, by default all:
#           nature test statistics autoencoder latents forecaster one_call evaluate race pack
#   1p5deg  a model at 1.5 degrees, whose one-call stepper is trained from nothing; it has not been run as a whole yet. Stages:
#           nature test statistics autoencoder latents one_call evaluate race season pack
#
#   DATA, RUNS  folders of data (100 GB) and of trained models (default: data/nature or data/nature_1p5deg, and runs)
#   MODEL       forecaster that is evaluated and packed (default: that of the stage one_call)
#   SEGMENTS    segments of 360 days of the nature run that is trained on (default: 60, or 9)
#
# Training runs on all GPUs of the machine, the nature run on the first one (needs the extra [simulate]).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
size=t31
[[ ${1-} != --size ]] || { size=$2 && shift 2; }
case $size in
t31)
    name=nature-t31 config=nature grid=64x33-south finer=() segments=60 test_days=440 stride=60
    starts=40 every=10 members=16 days=10
    stages="nature test statistics autoencoder latents forecaster one_call evaluate race pack"
    ;;
1p5deg)
    name=nature-t63 config=nature_1p5deg grid=240x121-south finer=(--truncation 63 --grid 240x121) segments=9 test_days=360 stride=20
    starts=12 every=30 members=50 days=15
    stages="nature test statistics autoencoder latents one_call evaluate race season pack"
    ;;
*)
    echo "Unknown size '$size'. Sizes: t31 1p5deg." >&2
    exit 1
    ;;
esac
data=${DATA:-data/$config} runs=${RUNS:-runs} segments=${SEGMENTS:-$segments}
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
device=$( ((gpus)) && echo cuda || echo cpu)
processes=$((gpus ? 4 * gpus : 1))
mkdir -p "$data" "$runs"
data=$(realpath "$data") runs=$(realpath "$runs")
model=${MODEL:-$runs/${config}_one_call_2d/$name}

at() { date -u -d "2101-01-11 + $((every * $1)) days" +%Y-%m-%d; } # the date of a start

train() { # train MODEL CONFIG [KEY=VALUE...]
    local launch=() model=$1 config=$2 words=()
    shift 2
    ((gpus < 2)) || launch=(torchrun --standalone --nproc-per-node "$gpus" --no-python)
    for word in "$@"; do words+=(--set "$word"); done
    "${launch[@]}" ladcast train "$model" "configs/train/$config.yaml" "${words[@]}"
}

one_call() { # one_call OUTPUT [KEY=VALUE...]
    local output=$1
    shift
    train forecaster "${config}_one_call" "latents=$data/latents.zarr" "autoencoder=$runs/${config}_autoencoder/autoencoder" \
        "name=$name" "validation.store.path=$data/nature.zarr" "output=$runs/$output" "$@"
}

evaluate() { # evaluate NAME OPTION...: all starts, shared by several processes
    local sums=$1 jobs=()
    shift
    for ((k = 1; k <= processes; k++)); do
        CUDA_VISIBLE_DEVICES=$((gpus ? k % gpus : 0)) ladcast evaluate "$data/test.zarr" --start "$(at 0)" --end "$(at $((starts - 1)))" \
            --every $((24 * every)) --members "$members" --days "$days" --device $device --model "$model" \
            --sums "$runs/$sums" --part $k/$processes "$@" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
    ladcast merge "$runs/$sums" --first "$(basename "$model")" --output "$runs/$sums.nc" --overwrite
}

for stage in ${@:-$stages}; do
    echo "== $stage"
    case $stage in
    nature) ladcast-data simulate "$data/nature.zarr" --segments "$segments" --spinup-days 60 --seed 100 "${finer[@]}" ;;
    test) ladcast-data simulate "$data/test.zarr" --start 2101-01-01 --days "$test_days" --seed 500 "${finer[@]}" ;;
    statistics)
        ladcast-data statistics "$data/nature.zarr" "$data/statistics.json" --grid "$grid" --stride "$stride"
        ladcast-data climatology "$data/nature.zarr" "$data/climatology.nc" --grid "$grid" --channels headline
        ;;
    autoencoder)
        train autoencoder "${config}_autoencoder" "data.path=$data/nature.zarr" "statistics=$data/statistics.json" \
            "output=$runs/${config}_autoencoder"
        ;;
    latents) ladcast-data encode "$data/nature.zarr" "$runs/${config}_autoencoder/autoencoder" "$data/latents.zarr" ;;
    forecaster)
        train forecaster "${config}_forecaster" "latents=$data/latents.zarr" "output=$runs/${config}_forecaster" \
            "autoencoder=$runs/${config}_autoencoder/autoencoder" "validation.store.path=$data/nature.zarr"
        ;;
    one_call) # a day, then two
        if [[ $size == t31 ]]; then
            one_call "${config}_one_call" "initial=$runs/${config}_forecaster/$name" # from the weights of the diffusion
            one_call "${config}_one_call_2d" "initial=$runs/${config}_one_call/$name" objective.blocks=2 training.batch_size=128 \
                training.steps=1450 training.optimizer.learning_rate=2.5e-4 training.optimizer.muon_learning_rate=4e-4
        else
            one_call "${config}_one_call"
            one_call "${config}_one_call_2d" "initial=$runs/${config}_one_call/$name" objective.blocks=2 training.batch_size=16 \
                objective.decoded=0.5 "objective.pooled=[8, 32]" training.steps=1000 training.optimizer.learning_rate=2.5e-4 \
                training.optimizer.muon_learning_rate=4e-4
        fi
        ;;
    evaluate) evaluate scores --climatology "$data/climatology.nc" --statistics default zonal_spectra ranks ;;
    race) # the atmospheric model and the forecaster from the same analyses, which have an error
        from=(--from-store "$data/test.zarr" --analysis-error 0.1 "${finer[@]}")
        for ((k = 0; k < starts; k++)); do from+=(--at "$(at $k)T00"); done
        ladcast-data simulate "$data/analyses.zarr" --members 2 --days 1 "${from[@]}"
        ladcast-data simulate "$data/race.zarr" --members 16 --days "$days" --perturb 0.1 "${from[@]}"
        evaluate race --analyses "$data/analyses.zarr" --climatology "$data/climatology.nc"
        ladcast score "$data/race.zarr" --truth "$data/test.zarr" --name atmospheric-model --no-baselines \
            --sums "$runs/race" --workers "$(nproc)" --output "$runs/atmospheric_model.nc" --overwrite
        ladcast merge "$runs/race" --first "$(basename "$model")" --output "$runs/race.nc" --overwrite
        ;;
    season) # from the truth itself; the atmospheric model's members around it
        dates=() from=(--from-store "$data/test.zarr" "${finer[@]}")
        for ((k = 0; k < starts; k++)); do dates+=("$(at $k)T00") from+=(--at "$(at $k)T00"); done
        ladcast-data simulate "$data/perfect.zarr" --members 8 --days 10 --perturb 0.1 "${from[@]}"
        [[ -d $runs/season.zarr ]] || ladcast forecast "${dates[@]}" --source "$data/test.zarr" --model "$model" --members "$members" \
            --days "$days" --keep latents --no-draw --device $device --output "$runs/season.zarr"
        ladcast season "$runs/season.zarr" --truth "$data/test.zarr" --name "$(basename "$model")" --against "atmospheric-model=$data/perfect.zarr" \
            --config tropical --device $device --output "$runs/season.nc" --overwrite
        ;;
    pack)
        cp "$data/climatology.nc" "$model/climatology.nc"
        ladcast-data excerpt "$data/test.zarr" "$model" --starts 2101-01-11T00 --starts 2101-07-10T00 --overwrite
        du -sh "$model"
        ;;
    *)
        echo "Unknown stage '$stage'. Stages: $stages." >&2
        exit 1
        ;;
    esac
done
