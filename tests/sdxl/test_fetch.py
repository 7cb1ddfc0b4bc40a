"""Downloading a world, over a server on this machine that speaks the hub's protocol."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import insightface.utils
import open_clip
import pytest
from filelock import FileLock
from huggingface_hub import constants, hf_api
from open_clip.transformer import QuickGELU
from PIL import Image
from typer.testing import CliRunner

from lookahead import world
from lookahead.cli import app
from lookahead.config import Checkpoints, with_overrides
from lookahead.doctor import checkpoint
from lookahead.errors import InputError
from lookahead.world import fetch
from lookahead.world.hub import part, parts
from lookahead.world.published import SHA256
from tests.project import WORLD, build_project
from tests.tiny import LORA_FILE

COMMIT = "c" * 40


def etag(name: str, content: bytes) -> str:
    """The hub's checksum of a file: of large ones their SHA-256, of others that of Git."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


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
                lfs = {"lfs": {"oid": digest, "size": size, "pointerSize": 1}} if len(etag(name, content)) == 64 else {}
                oid = etag(name, content)[:40]
                tree.append(
                    {"type": "file", "path": name.removeprefix(f"{repository}/"), "oid": oid, "size": size} | lfs
                )
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
        headers = {"ETag": f'"{etag(file, content)}"', "X-Repo-Commit": COMMIT}
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
    folder = part("base", checkpoints).folder()
    for name in (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/config.json",
    ):  # the hub's two kinds of checksum
        content = (folder / name).read_bytes()
        (folder / name).resolve().write_bytes(content[:-2] + b"!" + content[-1:])
        fetch(checkpoints, lambda _: None)
        assert (folder / name).read_bytes() == content
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    assert missing(checkpoints) == ["base"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("broken", "checkpoints.fast_child: owner/child: "), ("wrong", "is truncated or damaged .*, and was removed")],
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
    with pytest.raises(InputError, match=f"has no {LORA_FILE}; it has README.md, unet.bin"):
        fetch(child, lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE=0"):
        fetch(child, lambda _: None)
    assert not server.asked


def test_the_published_encoder_is_fetched_and_converted_by_name(child, server, tmp_path, monkeypatch):
    server.files["owner/authors/model_ckpt.pt"] = b"no checkpoint"
    source = {"source": f"owner/authors@{COMMIT}", "weight_name": "model_ckpt.pt"}
    fetch(with_overrides(child, {"published_encoder": source}), lambda _: None)
    assert server.asked == [LORA_FILE, "model_ckpt.pt"]
    build_project(tmp_path, with_overrides(child, {"published_encoder": source}))
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["convert", "published", "out", "--world", WORLD])
    assert isinstance(found.exception, InputError) and "model_ckpt.pt cannot be opened" in str(found.exception)


def test_a_changed_byte_in_the_cache_is_found_and_repaired_also_without_a_network_to_compare_with(
    child, server, monkeypatch
):
    fetch(child, lambda _: None)
    path = part("fast_child", child).folder() / LORA_FILE
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=rf"{LORA_FILE} differs from its SHA-256\n`lookahead fetch --world tiny`"):
        world.verify(child, "tiny", lambda _: None)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE=0"):
        fetch(child, lambda _: None)
    assert path.exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    reports = []
    fetch(child, reports.append)
    assert path.read_bytes() == content and server.asked == [LORA_FILE] * 2
    assert "differs from its SHA-256, and was removed" in reports[0] and reports[1].endswith("is complete")
    world.verify(child, "tiny", lambda _: None)


def test_what_a_killed_download_left_is_removed_unless_one_is_under_way(child, server):
    fetch(child, lambda _: None)
    kept = part("fast_child", child).kept
    strays = [kept / "blobs" / f"{letter * 64}.0123abcd.incomplete" for letter in "ab"]
    for stray in strays:
        stray.write_bytes(b"half of it")
    with FileLock(kept.parent / ".locks" / kept.name / f"{'b' * 64}.lock"):
        fetch(child, lambda _: None)
    assert [stray.exists() for stray in strays] == [False, True]


def test_a_damaged_face_pack_is_downloaded_again_and_compared(server, tiny_world, tmp_path, monkeypatch):
    """Whatever of it is damaged: insightface opens all its files."""
    faces = tiny_world.faces.model_copy(update={"loss": "buffalo_l"})
    checkpoints = tiny_world.model_copy(update={"faces": faces})
    source, kept = Path(tiny_world.faces.loss), tmp_path / ".insightface/models/buffalo_l"
    names = {"det_10g.onnx": "detector.onnx", "w600k_r50.onnx": "recogniser.onnx", "genderage.onnx": "detector.onnx"}
    content = {name: (source / own).read_bytes() for name, own in names.items()}
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        monkeypatch.setitem(SHA256, f"buffalo_l/{name}", hashlib.sha256(content[name]).hexdigest())
    sent = []

    def ensure_available(_folder: str, _name: str) -> None:
        assert not kept.exists(), "insightface would take this for a complete pack"
        kept.mkdir(parents=True)
        Path(f"{kept}.zip").write_bytes(b"the archive, which insightface leaves")
        for name, own in content.items():
            (kept / name).write_bytes(own)
        sent.append(kept)

    monkeypatch.setattr(insightface.utils, "ensure_available", ensure_available)
    fetch(checkpoints, lambda _: None)
    assert len(sent) == 1 and not Path(f"{kept}.zip").exists()
    for number, name in enumerate(content, start=2):
        (kept / name).write_bytes(content[name][:100])
        with pytest.raises(InputError, match="`lookahead fetch --world tiny` replaces it"):
            checkpoint(part("faces.loss", checkpoints), "tiny")
        fetch(checkpoints, lambda _: None)
        assert len(sent) == number and (kept / name).read_bytes() == content[name]
    (kept / "det_10g.onnx").unlink()
    fetch(checkpoints, lambda _: None)
    fetch(checkpoints, lambda _: None)
    assert len(sent) == 5
    content["w600k_r50.onnx"] = content["det_10g.onnx"]
    (kept / "det_10g.onnx").unlink()
    with pytest.raises(InputError, match=r"w600k_r50\.onnx differs from its SHA-256"):
        fetch(checkpoints, lambda _: None)
    assert len(sent) == 7, "twice, not for ever"


@pytest.fixture
def tagged(server: type[Hub], tiny_world: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """The tiny scorer as weights that open_clip knows by a tag, trained with QuickGELU, their commit pinned."""
    folder = Path(tiny_world.scorer.model.removeprefix("local-dir:"))
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    tag = {"own": {"hf_hub": "owner/clip/", "quick_gelu": True, "mean": (0.1,) * 3, "std": (0.2,) * 3}}
    for name, own in (("tiny", config), ("tiny-quickgelu", config | {"quick_gelu": True})):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, own)
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tag)
    file = "owner/clip/open_clip_model.safetensors"
    server.files[file] = (folder / "open_clip_model.safetensors").read_bytes()
    monkeypatch.setitem(SHA256, file, hashlib.sha256(server.files[file]).hexdigest())
    return with_overrides(tiny_world, {"scorer.model": "tiny-quickgelu", "scorer.pretrained": f"own@{COMMIT}"})


def test_the_scorer_opens_by_path_with_the_activation_and_the_colours_of_its_training(tagged, tiny_world, monkeypatch):
    fetch(tagged, lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", None)  # which asks the hub for `main`
    opened, original = world.open_scorer(tagged), world.open_scorer(tiny_world)
    assert any(isinstance(module, QuickGELU) for module in opened.model.modules())
    assert not any(isinstance(module, QuickGELU) for module in original.model.modules())
    weights = zip(opened.model.parameters(), original.model.parameters(), strict=True)
    assert all((one == other).all() for one, other in weights)
    white = opened.preprocess(Image.new("RGB", (64, 64), "white"))
    assert white.flatten()[0].item() == pytest.approx((1 - 0.1) / 0.2)


def test_a_scorer_with_another_activation_than_its_training_is_refused_before_anything_is_opened(tagged):
    checkpoints = with_overrides(tagged, {"scorer.model": "tiny"})
    for refused in (world.require, world.open_scorer):
        with pytest.raises(InputError, match=r"tiny has GELU, which its weights 'own' .*: choose tiny-quickgelu"):
            refused(checkpoints)
    with pytest.raises(InputError, match="open_clip knows no weights 'none' of 'tiny'"):
        world.require(with_overrides(checkpoints, {"scorer.pretrained": "none"}))


def test_a_changed_byte_of_the_scorer_is_found_when_it_opens(tagged):
    fetch(tagged, lambda _: None)
    path = part("scorer", tagged).folder() / "open_clip_model.safetensors"
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"open_clip_model\.safetensors differs from its SHA-256: `lookahead fetch"):
        world.open_scorer(tagged)
