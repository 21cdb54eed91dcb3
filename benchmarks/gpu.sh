#!/usr/bin/env bash
# Everything that a graphics card can show of this kit, in at most eight minutes: bash benchmarks/gpu.sh [OUT]
# Needs no installation and no network, only a python3 (or PYTHON=...), 3.11 or newer, with torch and the usual packages.
# OUT: folder for the numbers (reports/gpu). DATA=folder: data in Flickr8k's layout, to train both losses on.
# GPU_SMOKE=1: the same in tiny sizes, on any machine, to see that it works.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$here/benchmarks/gpu.py" "$@"
