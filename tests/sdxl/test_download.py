"""Downloading a world, over a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.world.download import damaged, download
from lookahead.world.hub import LORA_FILE, cached, hub_parts, missing

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves the files of repositories as the hub does; `broken` ones fail, `wrong` ones have other bytes."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    broken: ClassVar[set[str]] = set()
    wrong: ClassVar[set[str]] = set()

    def log_message(self, _format: str, *_rest: object) -> None:
        """Write nothing."""

    def _answer(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _tree(self) -> list[dict[str, object]]:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        return [
            {
                "type": "file",
                "path": name.split("/", 2)[2],
                "oid": digest[:40],
                "size": len(self.files[name]),
                "lfs": {"oid": digest, "size": len(self.files[name]), "pointerSize": 1},
            }
            for name, digest in digests.items()
        ]

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """A repository's list of files, or a file."""
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            return self._answer(json.dumps(self._tree()).encode(), {"Content-Type": "application/json"})
        owner, name, _, _, file = path.split("/", 4)
        content = self.files.get(f"{owner}/{name}/{file}")
        if content is None or file in self.broken:
            return self._answer(b"", {}, 403 if file in self.broken else 404)
        if self.command == "GET":
            self.asked.append(file)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._answer(content[::-1] if file in self.wrong else content, headers)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The server, an empty cache, and the hub switched on."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    Hub.asked.clear(), Hub.broken.clear(), Hub.wrong.clear(), Hub.files.clear()
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def child(hub: type[Hub], tiny_world: Checkpoints) -> Checkpoints:
    """The tiny world with its fast child on the hub."""
    weights = Path(tiny_world.fast_child) / LORA_FILE
    hub.files["owner/child/" + LORA_FILE] = weights.read_bytes()
    hub.files["owner/child/README.md"] = b"not needed"
    hub.files["owner/child/unet.bin"] = b"a pickle"
    return tiny_world.model_copy(update={"fast_child": f"owner/child@{COMMIT}"})


def test_what_is_missing_is_brought_once_and_nothing_else(child: Checkpoints, hub: type[Hub]) -> None:
    said: list[str] = []
    download(child, said.append)
    assert hub.asked == [LORA_FILE] and missing(child) == []
    (part,) = hub_parts(child)
    path = cached(part.source, LORA_FILE)
    assert path is not None and path.read_bytes() == hub.files["owner/child/" + LORA_FILE]
    download(child, said.append)
    assert hub.asked == [LORA_FILE]
    assert [line.split(":")[0] for line in said] == ["checkpoints.fast_child"] * 2 and said[1].endswith("is here")


def test_a_failure_is_named_and_the_next_run_goes_on(child: Checkpoints, hub: type[Hub]) -> None:
    hub.broken.add(LORA_FILE)
    with pytest.raises(
        InputError, match=r"1 parts failed; run again to go on:\n  checkpoints\.fast_child: owner/child"
    ):
        download(child, lambda _: None)
    assert missing(child)
    hub.broken.clear()
    download(child, lambda _: None)
    assert not missing(child)


def test_a_file_that_differs_from_its_checksum_is_removed(child: Checkpoints, hub: type[Hub]) -> None:
    hub.wrong.add(LORA_FILE)
    with pytest.raises(InputError, match="differs from its SHA-256, and was removed"):
        download(child, lambda _: None)
    assert missing(child)


def test_a_file_that_the_repository_lacks_is_named(child: Checkpoints, hub: type[Hub]) -> None:
    del hub.files["owner/child/" + LORA_FILE]
    with pytest.raises(InputError, match=LORA_FILE):
        download(child, lambda _: None)


def test_offline_it_says_which_variable_to_set(
    child: Checkpoints, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE=0"):
        download(child, lambda _: None)
    assert not hub.asked


def test_a_small_file_has_no_sha256_to_compare(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not damaged(tmp_path / "config.json")
