"""A project in small: the real stages over the tiny world, run once from data to report."""

import runpy
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lookahead.config import Checkpoints
from tests.project import STAGES, build_project, save_tree


def run_script(name: str, *arguments: str) -> str:
    """Run a stage as `python stages/NAME.py` would, in the current folder; its error, or nothing."""
    before, sys.argv = sys.argv, [f"stages/{name}.py", *arguments]
    try:
        runpy.run_path(f"stages/{name}.py", run_name="__main__")
    except SystemExit as stop:
        assert isinstance(stop.code, str), stop.code  # Python prints it, and exits with 1
        return stop.code
    finally:
        sys.argv = before
    return ""


LOOPBACK = ("127.0.0.1", "localhost")  # servers of other tests


@pytest.fixture(scope="session")
def calls() -> Iterator[list[str]]:
    """Every attempt to reach another machine while this fixture lives; all of them fail."""
    attempts: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def refuse(own: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] in LOOPBACK:
            return connect(own, address)
        attempts.append(str(address))
        raise OSError(f"no network here: {address}")

    def unknown(host: object, *rest: object, **options: object) -> object:
        if host in LOOPBACK:
            return look_up(host, *rest, **options)  # type: ignore[arg-type]
        attempts.append(str(host))
        raise socket.gaierror(f"no network here: {host}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", unknown)
        yield attempts


@pytest.fixture(scope="session")
def finished(calls: list[str], tiny_world: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run, without a network; copy it, do not change it."""
    root = build_project(tmp_path_factory.mktemp("finished"), tiny_world)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in STAGES:
            assert run_script(name) == ""
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project of the test's own, and the current folder."""
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def change(project: Path) -> Callable[[str, object], None]:
    """Change one parameter of the project by its dotted name."""

    def put(name: str, value: object) -> None:
        tree = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
        save_tree(project, tree)

    return put
