"""The rehearsal in small: the product's commands against a hub on this machine, and that hub itself."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from benchmarks.rehearsal import MANIFEST
from benchmarks.rehearsal.hub import serving
from benchmarks.rehearsal.steps import STEPS
from tests.modules import ROOT

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A folder with one file of a repository."""
    path = tmp_path / "owner/name/weights"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    digests = {"owner/name/weights": hashlib.sha256(CONTENT).hexdigest()}
    (tmp_path / MANIFEST).write_text(json.dumps(digests), encoding="utf-8")
    return tmp_path


def test_the_hub_sends_a_file_from_a_byte_on_with_its_digest_and_commit(origin):
    with serving(origin) as hub:
        address = f"{hub.address}/owner/name/resolve/{'a' * 40}/weights"
        with urlopen(Request(address, headers={"Range": "bytes=100-"})) as answer:
            assert answer.status == 206 and answer.read() == CONTENT[100:]
            assert answer.headers["ETag"] == f'"{hub.files["owner/name/weights"]}"'
            assert answer.headers["X-Repo-Commit"] == "a" * 40
        hub.wrong = "owner/name/weights"
        with urlopen(address) as answer:
            changed = answer.read()
    assert sum(one != other for one, other in zip(changed, CONTENT, strict=True)) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_step_of_the_rehearsal_passes_with_narrow_networks(tmp_path):
    words = ["-m", "benchmarks.rehearsal", "--world", "sd15", "--small", "--root", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [row.split(" | ") for row in done.stdout.splitlines()[2:]]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[0].removeprefix("| ") for row in rows] == list(STEPS)
