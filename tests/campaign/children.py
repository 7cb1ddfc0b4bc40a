"""The command line in children forked from this process, which has imported everything, and in real processes."""

import gc
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.launcher import COMMAND
from tests.modules import ROOT, SOURCE

PATIENCE = 300.0  # seconds, after which a command hangs
NOTHING: Mapping[str, str] = MappingProxyType({})
NOBODY = 65534  # an unprivileged user
_FORK = multiprocessing.get_context("fork")


def import_everything() -> None:
    """What the children would each import for seconds; nothing is started by it."""
    import lookahead.dataset.drawing
    import lookahead.evaluation.study
    import lookahead.photos.importing
    import lookahead.pipeline.convert
    import lookahead.pipeline.personalize
    import lookahead.report.evaluation
    import lookahead.report.studies
    import lookahead.search.run
    import lookahead.stage
    import lookahead.training.loop  # noqa: F401

    gc.freeze()  # children do not look through it all for garbage


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (minus the signal's number, if one ended it), and all that it wrote."""

    code: int
    said: str


def environment_of(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's variables with changes; without the repository of a caller's DVC."""
    own = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    return own | {"PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"} | dict(changes)


def _command(root: Path, words: Sequence[str], log: Path, changes: Mapping[str, str], user: int) -> None:
    """Be the command: what a new process does after its imports."""
    import lookahead
    from lookahead import cli

    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(target, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", 1, "utf-8", closefd=False) for stream in (1, 2))
    for number, action in {signal.SIGALRM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}.items():
        signal.signal(number, action)  # not pytest's
    os.chdir(root)
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    os.environ.clear()
    os.environ.update(environment_of(changes))
    importlib.reload(lookahead)  # which looks at the variables
    if words[0].endswith(".py"):
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")
    else:
        sys.argv = ["lookahead", *words]
        cli.main()


class Running:
    """A command that runs: `lookahead WORDS`, or a script with its arguments; forked, or a real process."""

    def __init__(
        self,
        root: Path,
        words: Sequence[str],
        log: Path,
        changes: Mapping[str, str] = NOTHING,
        real: bool = False,
        user: int = 0,
    ) -> None:
        """Start it in a folder; what it writes is appended to the log. `user` is for forked ones."""
        self._log, self._process = log, None
        if real:
            command = [sys.executable, *words] if words[0].endswith(".py") else [COMMAND, *words]
            with log.open("ab") as file:
                options = {"cwd": root, "env": environment_of(changes), "stdout": file, "stderr": file}
                self._process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
        else:
            self._child = _FORK.Process(target=_command, args=(root, words, log, changes, user))
            self._child.start()

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None if it still runs after so many seconds."""
        if self._process is None:
            self._child.join(seconds)
            return self._child.exitcode
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    @property
    def pid(self) -> int:
        """Its process."""
        return int((self._process or self._child).pid or 0)

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def finish(self) -> Done:
        """Wait for its end; a command that hangs is killed, and fails the test."""
        code = self.wait(PATIENCE)
        if code is None:
            self.send(signal.SIGKILL)
            self.wait(PATIENCE)
        said = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        assert code is not None, f"it hangs:\n{said[-2000:]}"
        return Done(code, said)


def run(root: Path, words: Sequence[str], log: Path, *how: Any, **named: Any) -> Done:
    """Run a command to its end, as `Running` says, with a new log."""
    log.unlink(missing_ok=True)
    return Running(root, words, log, *how, **named).finish()
