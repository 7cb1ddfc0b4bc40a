#!/usr/bin/env bash
# What only a GPU can show, in at most 9 minutes: the tests that need one, then the training step against the official
# way. Figures go to the folder OUT, if it is set; SECONDS_FOR_ALL and SECONDS_FOR_TESTS shorten it.
set -uo pipefail
cd "$(dirname "$0")/.."
end=$((SECONDS + ${SECONDS_FOR_ALL:-530}))
out=${OUT:-.}
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
# Resuming, bfloat16, keys and values under checkpointing, compiling: the tests run on the device that there is.
workers=$("$python" -c "import xdist" 2>/dev/null && echo "-n 6")  # compiling takes minutes on one core
timeout "${SECONDS_FOR_TESTS:-200}" "$python" -m pytest -q -p no:cacheprovider $workers tests/training -k "resum or restor or precision or bfloat16 or checkpointing or compile" \
  2>&1 | tee "$out/tests.txt" | tail -25
left=$((end - SECONDS))
echo "the training step: $left seconds left"
timeout "$left" "$python" -m benchmarks.train --minutes "$(awk "BEGIN { print ($left - 10) / 60 }")" --json "$out/train.json" 2>&1 | tee "$out/train.txt"
