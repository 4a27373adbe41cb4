#!/usr/bin/env bash
# What a GPU says: five parts, each in a process and a time limit of its own; see docs/cost.md and run.py --help.
#
#   benchmarks/gpu/run.sh BUDGET_SECONDS [--small] [--out FOLDER]
#
# PYTHON names the interpreter (python3). PCC_WHEELS names a folder of wheels that are installed for this run only.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
if [ -n "${PCC_WHEELS:-}" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --target "$site" \
        "$PCC_WHEELS"/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
fi
"$python" "$root/benchmarks/gpu/run.py" "$@"
