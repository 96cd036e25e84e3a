#!/usr/bin/env bash
# The whole table of benchmarks/gpu.py on one GPU, in under ten minutes. Usage: benchmarks/gpu.sh FOLDER [PYTHON]
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: benchmarks/gpu.sh FOLDER [PYTHON]; writes FOLDER/gpu.json, gpu.md and gpu.log" >&2
    exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
python=${2:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$folder/gpu.log"
# no block begins after 8 minutes; the longest, with its compilation, takes about one
timeout 590 "$python" benchmarks/gpu.py --out "$folder" --minutes 8 2>&1 | tee -a "$folder/gpu.log"
