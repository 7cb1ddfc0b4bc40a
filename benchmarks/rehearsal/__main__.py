"""A rehearsal of a world: checkpoints of the published sizes with random weights, a hub on this machine, the commands.

    python -m benchmarks.rehearsal --world sd15                            # all steps; 25 GB below /tmp/rehearsal
    python -m benchmarks.rehearsal --world sd15 --small                    # narrow networks, minutes
    python -m benchmarks.rehearsal --world sd15 --steps personalize export # these, even if they are done

A finished step is not run again unless it is named. docs/rehearsal.md has what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.rehearsal import MANIFEST
from benchmarks.rehearsal.hub import serving
from benchmarks.rehearsal.steps import STEPS, Failed, Rehearsal

HEAD = "| step | seconds | GB | verdict |\n|---|---:|---:|---|"


def line(name: str, done: dict[str, object]) -> str:
    """A row of the table."""
    verdict = "passes" if done["passed"] else "FAILS"
    return f"| {name} | {done['seconds']:.0f} | {done['memory']:.1f} | {verdict}: {done['said']} |"


def rehearse(run: Rehearsal, steps: list[str], again: bool) -> bool:
    """Run steps, each row printed when it ends; stops at the first that fails."""
    results = run.root / "steps.json"
    found: dict[str, dict[str, object]] = json.loads(results.read_bytes()) if results.is_file() else {}
    print(HEAD, flush=True)
    with ExitStack() as stack:
        for name in steps:
            if run.hub is None and name != "build":
                if not (run.origin / MANIFEST).is_file():
                    sys.exit(f"error: {run.origin} has no checkpoints: begin with --steps build")
                run.hub = stack.enter_context(serving(run.origin))
            if again or not found.get(name, {}).get("passed"):
                begun, run.peak = time.monotonic(), 0.0
                try:
                    passed, said = True, STEPS[name](run)
                except Failed as failure:
                    passed, said = False, str(failure).replace("\n", " ")
                taken = time.monotonic() - begun
                found[name] = {"passed": passed, "said": said, "seconds": taken, "memory": run.peak}
                results.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(line(name, found[name]), flush=True)
            if not found[name]["passed"]:
                return False
    return True


def main() -> None:
    """Run the rehearsal; exit code 1 if a step fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="sd15", choices=["sd15", "sdxl"])
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), help="these, done or not; default: all not done")
    parser.add_argument("--small", action="store_true", help="narrow networks and small pictures")
    parser.add_argument("--root", type=Path, default=Path("/tmp/rehearsal"), help="where everything is written")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that one command may take")
    options = parser.parse_args()
    root = options.root.resolve() / (options.world + ("-small" if options.small else ""))
    root.mkdir(parents=True, exist_ok=True)
    run = Rehearsal(root, options.world, options.small, options.limit)
    sys.exit(not rehearse(run, options.steps or list(STEPS), again=bool(options.steps)))


if __name__ == "__main__":
    main()
