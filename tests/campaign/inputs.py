"""Inputs as people and other programs give them: the command, what is damaged before, and what a refusal names."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from tests.project import WORLD, save_tree

PORTRAIT = f"models/{WORLD}/portraits/test/000/0.jpg"
PROMPT = "a photo of a person"
OUT = "new"


def _nothing(_root: Path) -> None:
    """Damage nothing."""


@dataclass(frozen=True)
class Input:
    """A command and its variables, what is done to the project before, and words of which a refusal has one."""

    words: tuple[str, ...]
    names: tuple[str, ...]
    prepare: Callable[[Path], object] = _nothing
    environment: Mapping[str, str] = field(default_factory=dict)


def drawing(*options: str, portrait: str = PORTRAIT, prompt: str = PROMPT, out: str = OUT) -> tuple[str, ...]:
    """The words of `lookahead personalize`; options hold their values, so that one may begin with a hyphen."""
    return ("personalize", f"--prompt={prompt}", f"--out={out}", *options, "--", portrait)


def leaves(tree: Mapping[str, Any], above: str = "") -> list[str]:
    """The dotted names of all values."""
    found: list[str] = []
    for key, value in tree.items():
        inside = isinstance(value, Mapping) and value and "." not in "".join(map(str, value))
        found += leaves(value, f"{above}{key}.") if inside else [f"{above}{key}"]
    return found


def put(tree: dict[str, Any], name: str, value: object) -> None:
    """Set a value by its dotted name."""
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree[parent]
    tree[last] = value


def read_tree(root: Path) -> dict[str, Any]:
    """The project's parameters."""
    tree: dict[str, Any] = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    return tree


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
BYTES = st.binary(max_size=60).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXT,
    st.sampled_from([[], {}, "", " ", "1e-4", "0x10", "1_000", "yes", "null", [1], {"a": 1}, -1, 0, 10**9]),
)
NUMBERS = st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.sampled_from([0, 1, -1, 1e-300, 1e300, 0.1, 2]))
TRAINING = (
    *("learning_rate", "weight_decay", "max_grad_norm", "ema_decay", "image_dropout", "text_dropout", "own_photos"),
    *("lookahead.weight", "sample_guidance_scale", "seed", "noise_density.strength", "lookahead.lora_scale.low"),
    *("lookahead.lora_scale.high", "lookahead.density.timestep_min", "lookahead.density.final_strength"),
)


@st.composite
def parameters(draw: st.DrawFn, tree: dict[str, Any]) -> Input:
    """A value of params.yaml that somebody changed, any of them for a plan, numbers for a training."""
    names = [name for name in leaves(tree) if not name.startswith(("worlds.", "defaults", "studies"))]
    names += [name for name in leaves(tree) if name.startswith((f"worlds.{WORLD}.", "studies.search"))]
    trained = draw(st.sampled_from([False, False, False, True]))
    name = f"worlds.{WORLD}.train.{draw(st.sampled_from(TRAINING))}" if trained else draw(st.sampled_from(names))
    value = draw(NUMBERS if trained else WRONG)

    def prepare(root: Path) -> None:
        changed = read_tree(root)
        put(changed, name, value)
        save_tree(root, changed)

    words = ("train", "--variant", "lookahead") if trained else draw(st.sampled_from([("plan",), ("headline",)]))
    return Input(words, (*name.split("."), str(value)[:20]), prepare)


def _cut(raw: bytes, at: int) -> bytes:
    return raw[:at]


def _twice(raw: bytes, at: int) -> bytes:
    start = raw.rfind(b"\n", 0, at) + 1
    end = raw.find(b"\n", at) + 1 or len(raw)
    return raw[:end] + raw[start:]


DAMAGES: tuple[Callable[[bytes, int], bytes], ...] = (
    _cut,
    _twice,
    lambda raw, at: raw[:at] + b"\xff\xfe" + raw[at:],
    lambda raw, at: raw[:at] + b"\t: [" + raw[at:],
    lambda raw, at: b"\xef\xbb\xbf" + raw,
    lambda raw, at: raw.replace(b"\n", b"\r\n"),
    lambda raw, at: raw.decode().encode("utf-16"),
    lambda raw, at: raw[:at] + b"\0" + raw[at + 1 :],
    lambda raw, at: b"",
    lambda raw, at: bytes(at % 500),
    lambda raw, at: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :],
)
TEXTS = {  # the text files that people edit, and a command that reads them
    "params.yaml": ("plan",),
    f"protocols/{WORLD}.yaml": ("evaluate",),
    f"prompts/{WORLD}.yaml": drawing(),
    "photos/captions.csv": ("import", "photos"),
    "list.csv": ("fetch", "list.csv", "portraits"),
}
LISTED = b"person,url,sha256\nanna,http://127.0.0.1:9/a.jpg," + b"0" * 64 + b"\n"


@st.composite
def texts(draw: st.DrawFn) -> Input:
    """A text file with a damage somewhere."""
    name = draw(st.sampled_from(sorted(TEXTS)))
    damage, share = draw(st.sampled_from(DAMAGES)), draw(st.floats(0, 0.99))

    def prepare(root: Path) -> None:
        own_photos(root)
        (root / "list.csv").write_bytes(LISTED)
        raw = (root / name).read_bytes()
        (root / name).write_bytes(damage(raw, int(share * len(raw))))

    return Input(TEXTS[name], (Path(name).name, "photos failed"), prepare)


def own_photos(root: Path) -> None:
    """Three photos of each of three people, with captions, in `photos`."""
    for name, folder in zip(("anna", "bela", "cora"), sorted((root / PORTRAIT).parents[1].iterdir()), strict=False):
        shutil.copytree(folder, root / "photos" / name)
    (root / "photos" / "captions.csv").write_text("file,caption\nanna/0.jpg,a photo of anna\n", encoding="utf-8")


def png_of(width: int, height: int) -> bytes:
    """A PNG that announces a size, and has no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@st.composite
def picture_bytes(draw: st.DrawFn) -> bytes:
    """A picture file: modes, sizes, formats, metadata and damages of all kinds."""
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F"]))
    size = draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
    kinds = {"RGB": ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"], "CMYK": ["JPEG", "TIFF"], "F": ["TIFF"]}
    kind = draw(st.sampled_from(kinds.get(mode, ["PNG"])))
    image, options = Image.new(mode, size, draw(st.integers(0, 255)) if mode in ("L", "P", "I;16") else 0), {}
    if kind in ("PNG", "JPEG", "WEBP") and draw(st.booleans()):
        options["exif"] = draw(st.binary(max_size=50)) or b"Exif\0\0"
    if kind == "PNG" and draw(st.integers(0, 9)) == 0:
        info = PngInfo()
        info.add_text("comment", "x" * draw(st.sampled_from([10, 2_000_000])), zip=draw(st.booleans()))
        options["pnginfo"] = info
    if kind == "PNG" and draw(st.booleans()):
        options["icc_profile"] = draw(st.binary(min_size=1, max_size=50))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    whole = buffer.getvalue()
    at, other = draw(st.integers(0, len(whole) - 1)), draw(st.integers(0, 255))
    huge = png_of(draw(st.integers(1, 2**31 - 1)), draw(st.integers(1, 2**31 - 1)))
    damaged = [whole[:at], whole[:at] + bytes([other]) + whole[at + 1 :], huge, b"", draw(st.binary(max_size=200))]
    return draw(st.sampled_from([whole, whole, *damaged]))


@st.composite
def pictures(draw: st.DrawFn) -> Input:
    """A picture file as portrait, or among a person's photos."""
    content, name = (
        draw(picture_bytes()),
        draw(st.sampled_from(["mine.png", "mine.jpg", "mine.JPEG", "mine.webp", "m"])),
    )

    def prepare(root: Path) -> None:
        own_photos(root)
        (root / "photos" / "anna" / name).write_bytes(content)

    asked = drawing(portrait=f"photos/anna/{name}")
    return Input(draw(st.sampled_from([asked, asked, ("import", "photos")])), (name,), prepare)


@st.composite
def prompts(draw: st.DrawFn) -> Input:
    """Words of any kind, also longer than the model reads, and numbers of any size beside them."""
    words = st.one_of(TEXT, BYTES, st.sampled_from(["", " ", "a " * 3000, "<script>", "\u202e", "a photo of a person"]))
    prompt, options = draw(words), [f"--negative={draw(words)}"] if draw(st.booleans()) else []
    names = {"seed": st.integers(-(2**70), 2**70), "images": st.integers(-3, 3), "steps": st.integers(-3, 1100)}
    names |= {"guidance": st.floats(), "adapter-scale": st.floats(), "steering": st.floats()}
    names |= {"scheduler": st.sampled_from(["EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "os"])}
    names |= {"combine": st.sampled_from(["average", "concatenate", "sum"])}
    chosen = draw(st.lists(st.sampled_from(sorted(names)), max_size=2, unique=True))
    given = {name: draw(names[name]) for name in chosen}
    if given.get("steps", 0) > 3:
        given["steps"] = max(given["steps"], 990)  # refused at once: drawing many would take long
    options += [f"--{name}={value}" for name, value in given.items()]
    fast = ["--fast"] * draw(st.booleans())
    said = ("prompt", *given, *(str(value)[:20] for value in given.values()), "num_inference_steps", "adapter_scale")
    return Input(drawing(*options, *fast, prompt=prompt), said)


ODD = ("none", "file", "folder", "full", "file/below", "dangling", "loop", "pipe", "x" * 300, "", ".", "..", "~")
ODD += ("/proc/self/nothing", "with space", "line\nbreak", "caf\udce9", "-x", "a" * 200 + "/" + "b" * 200)


def odd_places(root: Path) -> None:
    """Files, folders, links and a pipe under the names of ODD."""
    (root / "file").write_bytes(b"not what you look for")
    (root / "folder").mkdir()
    (root / "full").mkdir()
    (root / "full" / "holiday.jpg").write_bytes(b"mine")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")


@st.composite
def paths(draw: st.DrawFn) -> Input:
    """A path where something else is, or nothing, for every argument that is one."""
    path = draw(st.one_of(st.sampled_from(ODD), BYTES.filter(lambda text: "/" not in text)))
    commands: list[tuple[str, ...]] = [
        drawing(portrait=path),
        drawing(out=path),
        drawing(f"--encoder={path}"),
        drawing(f"--world={path}"),
        ("import", "--", path),
        ("fetch", "--", path, OUT),
        ("fetch", "--", "list.csv", path),
        ("export", "--", path),
        ("convert", f"--world={WORLD}", "--", path, OUT),
        ("compare", f"--out={path}", "--label=a", "--label=b", *[f"runs/{WORLD}/evaluate"] * 2),
        ("compare", "--", path, f"runs/{WORLD}/evaluate"),
        ("register", "--", path),
        ("search", f"--storage={path}"),
        ("dashboard", f"--storage={path}"),
        ("plan", f"--world={path}"),
        ("train", f"--variant={path}"),
    ]

    def prepare(root: Path) -> None:
        odd_places(root)
        (root / "list.csv").write_bytes(LISTED)

    shown = path.encode(errors="replace").decode()[:30] or "."  # an empty path is the current folder
    return Input(draw(st.sampled_from(commands)), (shown, repr(path)[1:30], path[:30], "photos failed"), prepare)


VARIABLES = {  # by others, with what they may hold
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"), ("", "0", "-1", "2,1", "x", "2")
    ),
    **dict.fromkeys(
        ("MLFLOW_TRACKING_URI",), ("", "nonsense://x", "http://127.0.0.1:9", "sqlite:////proc/no.db", "file")
    ),
    **dict.fromkeys(("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"), ("", "77", "gone")),
    **dict.fromkeys(
        ("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME", "DVC_ROOT"), ("", "/proc/nothing", "/dev/null", "file")
    ),
    **dict.fromkeys(
        ("LANG", "LC_ALL", "PYTHONIOENCODING", "TERM", "COLUMNS", "NO_COLOR"), ("", "C", "ascii", "0", "x")
    ),
    **dict.fromkeys(
        ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES"), ("", "x", "-1", "yes")
    ),
}


@st.composite
def environments(draw: st.DrawFn) -> Input:
    """Variables that another program has set, for a stage with tracking and for a drawing."""
    names = draw(st.lists(st.sampled_from(sorted(VARIABLES)), min_size=1, max_size=2, unique=True))
    given = {name: draw(st.sampled_from(VARIABLES[name])) for name in names}

    def prepare(root: Path) -> None:
        changed = read_tree(root)
        changed["tracking"]["enabled"] = True
        save_tree(root, changed)
        (root / "file").write_bytes(b"no database " * 50)

    words = draw(st.sampled_from([("features",), drawing()]))
    return Input(words, (*names, *(value for value in given.values() if value)), prepare, given)


@st.composite
def encoders(draw: st.DrawFn) -> Input:
    """An encoder's file of another kind, or one that lacks something."""
    change = draw(st.sampled_from(["drop", "rename", "transpose", "none", "nan", "other", "cut", "noise", "json"]))
    which = draw(st.integers(0, 10**6))

    def prepare(root: Path) -> None:
        source, target = root / f"models/{WORLD}/adapter/ip-adapter.safetensors", root / "mine/ip-adapter.safetensors"
        target.parent.mkdir()
        tensors = load_file(source)
        name = sorted(tensors)[which % len(tensors)]
        changed = {
            "drop": {key: value for key, value in tensors.items() if key != name},
            "rename": {(key + "_" if key == name else key): value for key, value in tensors.items()},
            "transpose": tensors | {name: tensors[name].T.contiguous().flatten()[:-1].clone()},
            "none": {},
            "nan": tensors | {name: tensors[name] * float("nan")},
            "other": load_file(root / f"models/{WORLD}/lcm_lora/pytorch_lora_weights.safetensors"),
        }
        save_file(changed.get(change, tensors), target)
        raw = target.read_bytes()
        raw = {"cut": raw[: which % len(raw)], "noise": bytes(which % 900), "json": b"{}"}.get(change, raw)
        target.write_bytes(raw)

    return Input(drawing("--encoder=mine"), ("mine",), prepare)


def _text(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


def tracked(root: Path) -> None:
    """Tracking is on, and its store is no database."""
    changed = read_tree(root)
    changed["tracking"]["enabled"] = True
    save_tree(root, changed)
    (root / "state" / "mlflow.db").write_bytes(b"no database " * 50)


FOUND = {  # by kind, what once ended in a traceback, a wrong place or a misleading message
    "a list of threads": Input(("features",), (), environment={"OMP_NUM_THREADS": "2,1"}),
    "no number of threads": Input(("features",), (), environment={"OMP_NUM_THREADS": ""}),
    "a stale launch": Input(("features",), (), environment={"WORLD_SIZE": "2", "RANK": ""}),
    "a name that is too long": Input(("compare", "x" * 300, f"runs/{WORLD}/evaluate"), ("xxx",)),
    "a key that stands twice": Input(("plan",), ("duplicate key",), _text("params.yaml", b"world: a\nworld: b\n")),
    "a date that is none": Input(("plan",), ("params.yaml",), _text("params.yaml", b"world: 2026-02-30\n")),
    "another encoding": Input(("plan",), ("params.yaml",), _text("params.yaml", "world: a".encode("utf-16"))),
    "an export over the project": Input(("export", "."), (".",)),
    "an import of nobody": Input(("import", "folder"), (), odd_places),
    "a broken store": Input(("ui",), ("mlflow.db",), tracked),
    "a port that is none": Input(("ui", "--port=99999"), ("99999",), tracked),
    "a storage that is a file": Input(("dashboard", "--storage=params.yaml"), ("params.yaml",)),
    "a special file as folder": Input(drawing(out="pipe"), ("pipe",), odd_places),
    "a special file as page": Input(
        ("compare", "--out=pipe", "--label=a", "--label=b", *[f"runs/{WORLD}/evaluate"] * 2), ("pipe",), odd_places
    ),
}
