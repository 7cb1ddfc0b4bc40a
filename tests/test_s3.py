"""DVC's bytes on an S3 server, by the commands of docs/scale.md: pushed from one repository, pulled in a clone."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.modules import ROOT
from tests.project import files_of

pytest.importorskip("dvc_s3")
moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.slow

EXAMPLE = "http://127.0.0.1:9000"  # where examples/servers.yaml puts the server
Run = Callable[..., str]


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an S3 server with the example's bucket."""
    threaded = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    threaded.start()
    address = "http://{}:{}".format(*threaded.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{address}/dvc", method="PUT"), timeout=60).close()
    yield address
    threaded.stop()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in a folder; what it prints."""
    identity = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    keys = {"AWS_ACCESS_KEY_ID": "lookahead", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    own = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site"), "NO_PROXY": "127.0.0.1"}
    environment = os.environ | identity | keys | own
    environment.pop("DVC_ROOT", None)

    def start(folder: Path, *words: str) -> str:
        command = [sys.executable, "-m", *words] if words[0] == "dvc" else list(words)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    return start


def documented(address: str) -> list[list[str]]:
    """The commands with which docs/scale.md names the server to DVC, for the server at an address."""
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0] for line in re.findall(r"^    (dvc remote .*)$", text, re.MULTILINE)]
    assert len(lines) == 2 and EXAMPLE in lines[1]
    return [line.replace(EXAMPLE, address).split() for line in lines]


def test_files_come_back_byte_for_byte_from_the_s3_server(server: str, run: Run, tmp_path: Path) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    (origin / "data" / "deep").mkdir(parents=True)
    (origin / "data" / "deep" / "pixels.bin").write_bytes(bytes(range(256)) * 40)
    (origin / "data" / "table.csv").write_text("a,b\n1,2\n")
    written = files_of(origin / "data")
    run(origin, "git", "init", "--quiet")
    run(origin, "dvc", "init", "--quiet")
    for command in documented(server):
        run(origin, *command)
    run(origin, "dvc", "add", "--quiet", "data")
    run(origin, "git", "add", "--all")
    run(origin, "git", "commit", "--quiet", "--message", "data")

    assert "3 files pushed" in run(origin, "dvc", "push")  # two, and the list of them
    run(tmp_path, "git", "clone", "--quiet", str(origin), str(clone))
    assert not (clone / "data").exists() and not (clone / ".dvc" / "cache").exists()
    run(clone, "dvc", "pull")
    assert files_of(clone / "data") == written
