#!/usr/bin/env bash
# Builds the source distribution, from it the wheel, and runs the embedded model outside of the repository, from the
# wheel: scripts/check_package.sh [PYTHON]
# The environment takes its dependencies from .venv; with a PYTHON such as python3.13 it installs them anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${1:-$venv/bin/python}

"$python" -m venv "$folder/build"
"$folder/build/bin/pip" install --quiet --disable-pip-version-check hatchling
(cd "$root" && "$folder/build/bin/hatchling" build --target sdist --directory "$folder/dist")
timed "build" "$folder/build/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --wheel-dir "$folder/dist" "$folder"/dist/*.tar.gz
ls "$folder/dist"

"$python" -m venv "$folder/clean"
if [[ -n ${1:-} ]]; then
    venv=$folder/clean
    install_torch
    install_packages "$folder"/dist/*.whl --constraint "$root/constraints.txt"
else
    "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$("$folder/clean/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
    "$folder/clean/bin/pip" install --quiet --disable-pip-version-check --no-deps "$folder"/dist/*.whl
fi

unset PYTHONPATH
mkdir "$folder/elsewhere"
cd "$folder/elsewhere"
export PATH=$folder/clean/bin:$PATH
timed "forecast" ladcast forecast --members 2 --days 1 --no-draw
ladcast ask forecast.zarr "t2m > 20 degC at Paris"
ladcast-data --help >/dev/null
python - "$folder/clean" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import ladcast
import xarray as xr

assert Path(ladcast.__file__).is_relative_to(sys.argv[1]), ladcast.__file__
assert "ladcast" in xr.backends.list_engines(), "the engine of latent stores is not registered"
assert (Path(ladcast.__file__).parent / "py.typed").is_file(), "annotations are not shipped"
print(f"ladcast {version('ladcast')} runs from the wheel in Python {sys.version.split()[0]}")
PYTHON
