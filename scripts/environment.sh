# Sourced by the scripts beside it: makes .venv in the repository root, or brings it up to date.
#
#   PYTHON               interpreter that .venv is made with (default: python3)
#   LADCAST_TORCH_INDEX  URL of the package index that torch comes from, for example one of CPU-only builds

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

timed() {  # timed LABEL COMMAND...: runs the command, then prints its wall time
    local label=$1 start=$SECONDS
    shift
    "$@"
    echo "$label: $((SECONDS - start)) s"
}

require_python() {
    local python=${PYTHON:-python3}
    if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'; then
        echo "Expected Python 3.11 to 3.14, got $("$python" --version 2>&1) from '$python'." \
            "Install one and name it: PYTHON=python3.11 $0" >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "'$python' cannot make virtual environments. On Debian: apt install python3-venv" >&2
        exit 1
    fi
}

install_packages() {
    if command -v uv >/dev/null; then
        UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}} uv pip install --python "$venv/bin/python" "$@"
    else
        "$venv/bin/python" -m pip install --disable-pip-version-check "$@" | say_packages
    fi
}

say_packages() {  # of what pip says, a line for each package that it fetches, and that it installs them; after 10 s of silence, the time
    local line start=$SECONDS
    sed -unE '/\.metadata /d; s/^ *(Downloading|Using cached|Processing) (.*\/)?([^ /]+)-[0-9][^ ]*( \(.*\))?$/  \1 \3\4/p; s/^(Installing collected packages).*/  \1 .../p' \
        | while IFS= read -r -t 10 line || (($? > 128)); do
            echo "${line:-  ... $((SECONDS - start)) s}"
        done
}

install_torch() {  # before the rest, so that a machine without a GPU gets a build without CUDA where one is at hand
    local torch
    torch=$(grep '^torch==' "$root/constraints.txt")
    if "$venv/bin/python" -c 'import torch' 2>/dev/null; then
        return
    elif [[ -n ${LADCAST_TORCH_INDEX:-} ]]; then
        install_packages "$torch" --index-url "$LADCAST_TORCH_INDEX"
    elif ! command -v nvidia-smi >/dev/null && ! install_packages "$torch+cpu" 2>/dev/null; then
        echo "No CPU-only build of $torch at hand: installing the default one, which brings CUDA on Linux x86-64." \
            "To avoid that, set LADCAST_TORCH_INDEX to an index of CPU builds." >&2
    fi
}

make_environment() {  # make_environment EXTRAS: EXTRAS such as [dev]
    local stamp=$venv/.installed$1
    if [[ $stamp -nt $root/pyproject.toml && $stamp -nt $root/constraints.txt ]]; then
        return
    fi
    require_python
    echo "Installing into $venv, which takes minutes."
    [[ -x $venv/bin/pip ]] || "${PYTHON:-python3}" -m venv "$venv"
    install_torch
    install_packages --editable "$root$1" --constraint "$root/constraints.txt"
    touch "$stamp"
}
