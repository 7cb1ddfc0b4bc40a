#!/usr/bin/env bash
# What only a GPU can show, in at most 9 minutes: the tests that need one, then the training step against the official
# way. Run from the repository's root; figures go to the folder OUT, if it is set.
set -uo pipefail
cd "$(dirname "$0")/.."
end=$((SECONDS + 530))
out=${OUT:-.}
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)
export PYTHONPATH="$PWD/src:$PWD" HF_HUB_OFFLINE=1
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
# Resuming, bfloat16, keys and values under checkpointing, compiling: the tests run on the device that there is.
timeout 200 "$python" -m pytest -q -p no:cacheprovider tests/training -k "resum or restor or precision or bfloat16 or checkpointing or compile" \
  2>&1 | tee "$out/tests.txt" | tail -15
left=$((end - SECONDS))
echo "the training step: $left seconds left"
timeout "$left" "$python" -m benchmarks.train --minutes "$(((left - 20) / 60))" --json "$out/train.json" 2>&1 | tee "$out/train.txt"
