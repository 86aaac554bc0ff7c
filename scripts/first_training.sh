#!/usr/bin/env bash
# From nothing to a scored forecast of a model of your own: scripts/first_training.sh [FOLDER]
# FOLDER receives data, models and the forecast (default: runs/first). Each stage says how long it took; the same command goes on
# where it was stopped. The weather is made by an atmospheric model (extra [simulate]).
#
#   DAYS  days of weather, of which the first 56 are trained on, a multiple of 10 (default: 70)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ ! -x $root/.venv/bin/ladcast ]] || PATH=$root/.venv/bin:$PATH
mkdir -p "${1:-$root/runs/first}"
folder=$(realpath "${1:-$root/runs/first}")
nature=$folder/nature.zarr configs=$root/configs/train
export TIMEFORMAT='== %R s, of the processors %U s'

stage() {  # stage LABEL COMMAND...: says what is done, and then how long it took
    echo "== $1"
    shift
    time "$@"
}

train() {  # train MODEL SETTING...
    local model=$1 words=()
    shift
    for word in "$@"; do words+=(--set "$word"); done
    ladcast train "$model" "$configs/first_$model.yaml" "${words[@]}" --set "output=$folder/$model"
}

days=${DAYS:-70}
python -c 'import sys; from importlib.util import find_spec; sys.exit(find_spec("jcm") is None)' \
    || { echo "The weather is made by JCM: pip install -e '.[simulate]'" >&2; exit 6; }
stage "weather: 30 days to spin up, $days days to learn from; its model is compiled first, a minute or two" \
    ladcast-data simulate "$nature" --days "$days" --spinup-days 30 --seed 100
stage "statistics" ladcast-data statistics "$nature" "$folder/statistics.json" --grid 64x33-south --stride 4
stage "autoencoder" train autoencoder "data.path=$nature" "statistics=$folder/statistics.json"
stage "latents" ladcast-data encode "$nature" "$folder/autoencoder/autoencoder" "$folder/latents.zarr"
stage "forecaster" train forecaster "latents=$folder/latents.zarr" "autoencoder=$folder/autoencoder/autoencoder"
[[ -e $folder/forecast.png ]] || stage "forecast" \
    ladcast forecast 2001-03-06T00 --source "$nature" --model "$folder/forecaster/first" --days 5 \
    --output "$folder/forecast.zarr"  # what is complete is not made again
[[ -e $folder/forecast.scores.nc ]] || stage "scores" ladcast score "$folder/forecast.zarr" --truth "$nature"
echo "written to $folder"
