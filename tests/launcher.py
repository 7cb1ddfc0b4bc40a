"""Two processes of accelerate, as a user starts them."""

import os
import subprocess
import sys

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCHER += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def launch(*words: str) -> str:
    """Run a script and its arguments with a thread each; what the processes say on the way."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*LAUNCHER, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr
