"""The benchmark counts what a child really took, each child apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chain.py"
ALLOCATE = "x = bytes(range(256)) * ({} << 12)"  # MiB
Cost = dict[str, float]


def _python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def _run(*codes: str) -> subprocess.CompletedProcess[str]:
    """Measure commands in a process as small as the script's own: this one's memory would count as theirs."""
    commands = [_python(code) for code in codes]
    code = (
        f"import json, runpy; stages = runpy.run_path({str(SCRIPT)!r})\n"
        f"costs = [stages['measure']('stage', command) for command in {commands!r}]\n"
        "print(json.dumps([vars(cost) for cost in costs])); print(stages['table'](costs))"
    )
    return subprocess.run(_python(code), capture_output=True, text=True, check=False)


def _measure(*codes: str) -> list[Cost]:
    costs: list[Cost] = json.loads(_run(*codes).stdout.splitlines()[0])
    return costs


def test_memory_is_of_this_child_alone() -> None:
    large, small = _measure(ALLOCATE.format(400), "pass")
    assert 400 < large["memory"] < 500
    assert small["memory"] < 100


def test_time_is_wall_clock_and_processor() -> None:
    (cost,) = _measure("import time; time.sleep(1)")
    assert cost["seconds"] >= 1 > cost["processor"]


def test_a_failure_is_an_error() -> None:
    done = _run("raise SystemExit(3)")
    assert done.returncode != 0
    assert "CalledProcessError" in done.stderr
