"""Downloading a world, over a server on this machine that speaks the hub's protocol."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import insightface.utils
import pytest
from huggingface_hub import constants, hf_api

from lookahead import world
from lookahead.config import Checkpoints, with_overrides
from lookahead.errors import InputError
from lookahead.world import fetch, hub
from lookahead.world.hub import part, parts
from tests.tiny import LORA_FILE

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

    def _api(self, path: str) -> bytes:
        """The tree of a repository's files, or its description."""
        repository, tree = "/".join(path.split("/")[2:4]), []
        for name, content in self.files.items():
            if name.startswith(f"{repository}/"):
                digest, size = hashlib.sha256(content).hexdigest(), len(content)
                lfs = {"oid": digest, "size": size, "pointerSize": 1}
                name = name.removeprefix(f"{repository}/")
                tree.append({"type": "file", "path": name, "oid": digest[:40], "size": size, "lfs": lfs})
        whole = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": file["path"]} for file in tree]}
        return json.dumps(tree if "/tree/" in path else whole).encode()

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """A repository's list of files, or a file."""
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            return self._answer(self._api(path), {"Content-Type": "application/json"})
        owner, name, _, _, file = path.split("/", 4)
        content = self.files.get(f"{owner}/{name}/{file}")
        if content is None or file in self.broken:
            return self._answer(b"", {}, 403 if file in self.broken else 404)
        if self.command == "GET":
            self.asked.append(file)
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._answer(content[::-1] if file in self.wrong else content, headers)


@pytest.fixture
def server(home, monkeypatch) -> Iterator[type[Hub]]:
    """The server, an empty cache, and the hub switched on."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)  # which diffusers uses
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    Hub.asked.clear(), Hub.broken.clear(), Hub.wrong.clear(), Hub.files.clear()
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def child(server: type[Hub], tiny_world: Checkpoints) -> Checkpoints:
    """The tiny world with its fast child on the hub."""
    server.files["owner/child/" + LORA_FILE] = (Path(tiny_world.fast_child.source) / LORA_FILE).read_bytes()
    server.files["owner/child/README.md"] = b"not needed"
    server.files["owner/child/unet.bin"] = b"a pickle"
    return with_overrides(tiny_world, {"fast_child.source": f"owner/child@{COMMIT}"})


def missing(checkpoints: Checkpoints) -> list[str]:
    return [found.name for found in parts(checkpoints) if found.missing()]


def test_what_is_missing_is_downloaded_once_and_nothing_else(child, server):
    reports = []
    fetch(child, reports.append)
    assert server.asked == [LORA_FILE] and missing(child) == []
    found = part("fast_child", child)
    assert (found.folder() / LORA_FILE).read_bytes() == server.files["owner/child/" + LORA_FILE]
    fetch(child, reports.append)
    assert server.asked == [LORA_FILE]
    assert [line.split(":")[0] for line in reports] == ["checkpoints.fast_child"] * 2
    assert reports[1].endswith("is complete")


def test_of_a_pipeline_only_what_is_opened_is_downloaded(server, tiny_world, tmp_path):
    """Its variant, without the VAE that another one replaces, without pickles and other formats."""
    world.open_pipeline(tiny_world).save_pretrained(tmp_path / "base", variant="fp16")
    for path in (path for path in (tmp_path / "base").rglob("*") if path.is_file()):
        name = path.relative_to(tmp_path / "base").as_posix()
        server.files[f"owner/base/{name}"] = path.read_bytes()
        if name.endswith(".fp16.safetensors"):
            for other in (".safetensors", ".bin", ".fp16.bin", ".msgpack"):
                server.files[f"owner/base/{name.replace('.fp16.safetensors', other)}"] = b"too much"
    server.files["owner/base/sd_xl_base_1.0.safetensors"] = b"all in one file"
    row = {"base": f"owner/base@{COMMIT}:fp16", "vae": str(Path(tiny_world.base) / "vae")}
    checkpoints = tiny_world.model_copy(update=row)
    assert missing(checkpoints) == ["base"]
    fetch(checkpoints, lambda _: None)
    weights = {name for name in server.asked if not name.endswith((".json", ".txt"))}
    folders = ("text_encoder/model", "text_encoder_2/model", "unet/diffusion_pytorch_model")
    assert weights == {f"{name}.fp16.safetensors" for name in folders} and missing(checkpoints) == []
    opened, original = world.open_pipeline(checkpoints), world.open_pipeline(tiny_world)
    assert all((a == b).all() for a, b in zip(opened.unet.parameters(), original.unet.parameters(), strict=True))
    found = part("base", checkpoints)
    (found.folder() / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    assert missing(checkpoints) == ["base"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("broken", "checkpoints.fast_child: owner/child: "), ("wrong", "differs from its SHA-256, and was removed")],
)
def test_a_failure_is_named_and_the_next_run_continues(fault, reason, child, server):
    getattr(server, fault).add(LORA_FILE)
    with pytest.raises(InputError, match=rf"1 parts failed; run again to continue:\n.*{reason}"):
        fetch(child, lambda _: None)
    assert missing(child)
    getattr(server, fault).clear()
    fetch(child, lambda _: None)
    assert not missing(child)


def test_a_file_that_the_repository_lacks_is_named_and_offline_the_variable_to_set(child, server, monkeypatch):
    del server.files["owner/child/" + LORA_FILE]
    with pytest.raises(InputError, match=LORA_FILE):
        fetch(child, lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE=0"):
        fetch(child, lambda _: None)
    assert not server.asked


def test_a_damaged_face_pack_is_downloaded_again_and_compared(server, tiny_world, tmp_path, monkeypatch):
    faces = tiny_world.faces.model_copy(update={"loss": "buffalo_l"})
    checkpoints = tiny_world.model_copy(update={"faces": faces})
    source, kept = Path(tiny_world.faces.loss), tmp_path / ".insightface/models/buffalo_l"
    content = (source / "recogniser.onnx").read_bytes()
    monkeypatch.setattr(hub, "PACK_DIGESTS", {"buffalo_l/w600k_r50.onnx": hashlib.sha256(content).hexdigest()})
    sent = [content[:-1], content]  # the first download is damaged

    def ensure_available(_folder: str, name: str) -> None:
        assert not kept.exists(), "insightface would take this for a complete pack"
        kept.mkdir(parents=True)
        (kept / "w600k_r50.onnx").write_bytes(sent.pop(0))

    monkeypatch.setattr(insightface.utils, "ensure_available", ensure_available)
    with pytest.raises(InputError, match=r"w600k_r50\.onnx differs from its SHA-256"):
        fetch(checkpoints, lambda _: None)
    fetch(checkpoints, lambda _: None)
    fetch(checkpoints, lambda _: None)
    assert not sent
