#!/usr/bin/env bash
# Installs SLURM, which tests/cluster runs for real: Debian or Ubuntu, as root. Services are not started.
set -euo pipefail

missing=()
for program in slurmctld slurmd munged srun; do
    command -v $program >/dev/null || missing+=("$program")
done
if [[ ${#missing[@]} -eq 0 ]]; then
    exit
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "SLURM lacks ${missing[*]}, and installing it takes root and apt-get: tests/cluster will be skipped." >&2
    exit 1
fi
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then  # keeps packages from starting their services
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
timeout 60 apt-get -qq update
timeout 180 apt-get -qq install --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
