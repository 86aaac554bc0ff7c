#!/usr/bin/env bash
# Sets up .venv and runs the tests and notebooks: scripts/test.sh [PYTEST ARGUMENTS]
# environment.sh names the variables that steer the set-up.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

timed "environment" make_environment "[data,dev,docs,grib,interop,slurm]"
cd "$root"
unset PYTHONDONTWRITEBYTECODE  # else each of some sixty processes compiles all that it imports
export OMP_NUM_THREADS=1  # one thread for each test process
checked=--jaxtyping-packages=ladcast,beartype.beartype  # shapes and types of what every function takes and returns
timed "tests" "$venv/bin/python" -m pytest --quiet --numprocesses 2 --dist loadfile --durations 15 $checked "$@"
