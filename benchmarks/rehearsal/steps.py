"""The steps of a rehearsal: each runs the product's command as a user would, and judges what came of it."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from PIL import Image

from benchmarks.rehearsal import UNOPENED
from benchmarks.rehearsal.hub import Hub
from lookahead.config import World, read_params

ROOT, PRODUCT = Path(__file__).parents[2], "benchmarks.rehearsal.product"


class Failed(Exception):
    """What a step was to show is not so."""


@dataclass
class Rehearsal:
    """The folders, the environment of the commands, and the largest memory that one of them took, in GB."""

    root: Path
    world: str
    small: bool
    limit: float  # seconds that a command may take
    hub: Hub | None = None
    peak: float = 0.0

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def origin(self) -> Path:
        return self.root / "origin"

    def settings(self) -> World:
        """The world's parameters, as the project has them."""
        return read_params(self.project / "params.yaml").of(self.world)

    def environment(self, online: bool) -> dict[str, str]:
        """The variables of a command: a home of its own, and the hub, if it may be asked."""
        path = f"{ROOT / 'src'}:{ROOT}"
        own = {"HOME": str(self.root / "home"), "HF_HOME": str(self.root / "hub"), "PYTHONPATH": path}
        own |= {"HF_ENDPOINT": self.served.address, "REHEARSAL_ORIGIN": str(self.origin)}
        own |= {"HF_HUB_OFFLINE": str(int(not online)), "MLFLOW_DISABLE_TELEMETRY": "true", "NO_PROXY": "*"}
        return {**os.environ, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    @property
    def served(self) -> Hub:
        assert self.hub is not None, "the step `build` comes first"
        return self.hub

    @contextmanager
    def running(
        self, *words: str, online: bool = False, largest: int = resource.RLIM_INFINITY
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """A process in the project, and the file of what it says; `largest` bytes is what a file may have."""
        log = self.root / "logs" / f"{time.time():.0f}-{words[0].split('.')[-1]}-{words[1]}.txt"
        log.parent.mkdir(exist_ok=True)
        command, environment = [sys.executable, "-m", *words], self.environment(online)
        with log.open("wb") as out:
            options: dict[str, Any] = {"cwd": self.project, "env": environment, "stdout": out, "stderr": out}
            process = subprocess.Popen(command, **options)
        try:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest, largest))
            yield process, log
        finally:
            if process.returncode is None:
                process.kill()
                self._reap(process, 60)

    def _reap(self, process: subprocess.Popen[bytes], limit: float) -> bool:
        """Wait for a process and note its memory; False if it takes longer."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                self.peak = max(self.peak, usage.ru_maxrss * 1024 / 1e9)
                return True
            time.sleep(0.1)
        return False

    def run(self, *words: str, code: int = 0, **options: Any) -> str:
        """What a module says; Failed with its last lines unless it ends with this exit code."""
        with self.running(*words, **options) as (process, log):
            if not self._reap(process, self.limit):
                raise Failed(f"not done in {self.limit:.0f} s ({log})")
        said = log.read_text(encoding="utf-8", errors="replace")
        expect(process.returncode == code, f"exit code {process.returncode}, not {code}: {said[-300:]} ({log})")
        return said

    def lookahead(self, *words: str, **options: Any) -> str:
        """The command `lookahead`."""
        return self.run(PRODUCT, *words, "--world", self.world, **options)


def expect(holds: object, otherwise: str) -> None:
    """Fail unless something holds."""
    if not holds:
        raise Failed(otherwise)


def picture(path: Path, side: int) -> None:
    """Fail unless a picture has this side, and shows something."""
    pixels = np.asarray(Image.open(path))
    expect(pixels.shape == (side, side, 3), f"{path} has the shape {pixels.shape}")
    expect(pixels.std() > 1, f"{path} is of one colour")


def build(run: Rehearsal) -> str:
    """Write the project and the checkpoints; nothing of the product runs."""
    from benchmarks.rehearsal import (  # here: torch is slow to import, and the other steps need none
        checkpoints,
        project,
    )

    project.write(run.project, run.world, run.small)
    (run.root / "home").mkdir(exist_ok=True)
    size = checkpoints.build(run.origin, run.settings().checkpoints, checkpoints.SIZES[run.world, run.small])
    run.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return f"{size / 1e9:.2f} GB are served"


def doctor_before(run: Rehearsal) -> str:
    """Every part is missing, and the command that fetches them is named."""
    said = run.lookahead("doctor", code=1)
    expect(f"lookahead fetch --world {run.world}" in said, "doctor does not name the command that fetches")
    return f"{said.count(': missing')} parts are missing, and how to get them is said"


def _unet(run: Rehearsal) -> str:
    """The name of the U-Net's file, the first large one; it is not in the cache any more."""
    name = next(name for name in run.served.files if name.endswith("unet/diffusion_pytorch_model.fp16.safetensors"))
    for path in (run.root / "hub").rglob(Path(name).name):
        if path.parent.name == "unet":
            path.resolve().unlink(missing_ok=True)
            path.unlink()
    return name


def fetch_killed(run: Rehearsal) -> str:
    """Killed in the middle of the U-Net."""
    run.served.stall = name = _unet(run)
    with run.running(PRODUCT, "fetch", "--world", run.world, online=True) as (process, log):
        end = time.monotonic() + run.limit
        while not run.served.stalled.wait(1) and process.poll() is None and time.monotonic() < end:
            pass
    run.served.stall = ""
    run.served.released.set()
    expect(run.served.stalled.is_set(), f"the download did not come to {name}: {log}")
    return "killed at half of the U-Net"


def fetch_full_disk(run: Rehearsal) -> str:
    """No file may grow beyond half of the U-Net."""
    half = (run.origin / _unet(run)).stat().st_size // 2
    said = run.lookahead("fetch", code=1, online=True, largest=half)
    expect("parts failed" in said and "Traceback" not in said, f"it says: {said[-300:]}")
    return next(line.strip() for line in said.splitlines() if line.startswith("  checkpoints.base"))[:150]


def fetch_wrong_byte(run: Rehearsal) -> str:
    """A byte of the U-Net is changed on the wire: refused by name."""
    run.served.wrong = name = _unet(run)
    said = run.lookahead("fetch", code=1, online=True)
    run.served.wrong = ""
    expect(f"{Path(name).name} differs from its SHA-256" in said, f"it says: {said[-300:]}")
    return "the file is named and removed"


def fetch(run: Rehearsal) -> str:
    """Completes; nothing is asked for that is not opened."""
    run.lookahead("fetch", online=True)
    needless = {name for name, _ in run.served.sent if name.endswith(UNOPENED)}
    expect(not needless, f"downloaded without need: {needless}")
    continued = [name for name, start in run.served.sent if start > 0]
    run.served.sent.clear()
    run.lookahead("fetch", online=True)
    expect(not run.served.sent, f"downloaded again: {run.served.sent[:3]}")
    return f"complete; {len(continued)} files continued within; a second run asks for nothing"


def doctor(run: Rehearsal) -> str:
    """Nothing is missing."""
    said = run.lookahead("doctor")
    return f"{said.count(' ok ')} ok, {said.count(' note ')} notes"


def personalize(run: Rehearsal) -> str:
    """A picture of a person in few steps."""
    portrait, side = f"models/{run.world}/portraits/test/000/0.jpg", run.settings().checkpoints.resolution
    out = f"pictures/{time.time():.0f}"
    options = ("--prompt", "a pencil drawing of a person in the snow", "--out", out)
    said = run.lookahead("personalize", portrait, *options, "--fast")
    picture(run.project / out / "00-0.png", side)
    return f"{side} px; {_warnings(said)}"


def _warnings(said: str) -> str:
    lines = {line.strip() for line in said.splitlines() if re.search(r"warn|mismatch|not used|newly init", line, re.I)}
    return f"{len(lines)} warnings" + (f", the first: {min(lines)[:100]}" if lines else "")


def stage(name: str, *outputs: str) -> Callable[[Rehearsal], str]:
    """A step that runs a stage, whose outputs are files below runs/WORLD."""

    def step(run: Rehearsal) -> str:
        said = run.lookahead(name)
        for output in outputs:
            expect((run.project / "runs" / run.world / output).is_file(), f"{output} is not written")
        return _warnings(said)

    return step


def export(run: Rehearsal) -> str:
    """The exported encoder in stock diffusers."""
    run.lookahead("export", "exported")
    run.run("benchmarks.rehearsal.stock", run.world, "exported", "stock.png")
    picture(run.project / "stock.png", run.settings().checkpoints.resolution)
    return "stock diffusers opens it and draws"


def demo(run: Rehearsal) -> str:
    """The page answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with run.running(PRODUCT, "demo", "--port", str(port), "--world", run.world) as (process, log):
        end = time.monotonic() + run.limit
        while time.monotonic() < end and process.poll() is None:
            try:
                with urlopen(f"http://127.0.0.1:{port}/config", timeout=10) as answer:
                    expect(b"Portrait" in answer.read(), "the page has no portrait")
                    return "the page answers"
            except (URLError, OSError):
                time.sleep(0.5)
    raise Failed(f"no answer: {log.read_text(encoding='utf-8', errors='replace')[-300:]}")


STEPS: dict[str, Callable[[Rehearsal], str]] = {
    "build": build,
    "doctor_before": doctor_before,
    "fetch_killed": fetch_killed,
    "fetch_full_disk": fetch_full_disk,
    "fetch_wrong_byte": fetch_wrong_byte,
    "fetch": fetch,
    "doctor": doctor,
    "personalize": personalize,
    "generate": stage("generate", "generate/table.parquet", "generate/metrics.json"),
    "features": stage("features", "features/table.parquet"),
    "train": stage("train", *(f"train/{name}/encoder/kv.safetensors" for name in ("noise_only", "lookahead"))),
    "evaluate": stage("evaluate", "evaluate/metrics.json", "evaluate/report.html"),
    "export": export,
    "demo": demo,
}
