"""Servers for this machine only, bounded uploads, paths that stay inside, no code from files, reports that escape."""

import ast
import io
import os
import pickle
import signal
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psutil
import pytest
import yaml
from PIL import Image

from lookahead.errors import InputError
from lookahead.serving import LONGEST, read_base64, write_base64
from tests.campaign.children import Running, run
from tests.campaign.conftest import FIGURES
from tests.launcher import free_port
from tests.modules import ROOT, SOURCE
from tests.project import PROTOCOL, WORLD, write_protocol

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]
Place = Callable[[], Path]
HTML = "<img src=x onerror=alert(1)>"
SECRET = "../../../../../../../../etc/passwd"


def answer(url: str, content: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
    """The status and the body of an answer; 0 while nobody answers."""
    try:
        request = urllib.request.Request(url, content, {"Content-Type": kind} if kind else {})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def upload(url: str, size: int) -> int:
    """The status of an upload of so many bytes."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    content = head + bytes(size) + b"\r\n--x--\r\n"
    return answer(f"{url}/gradio_api/upload", content, "multipart/form-data; boundary=x")[0]


@pytest.fixture(params=["ui", "dashboard", "demo"])
def server(request: pytest.FixtureRequest, place: Place, log: Path) -> Iterator[tuple[str, str, int]]:
    """A server's name, address and process."""
    root, port = place(), free_port()
    tree = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    tree["tracking"]["enabled"] = True
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    (root / "state" / "search").mkdir(parents=True)
    optuna.storages.RDBStorage(f"sqlite:///{root}/state/search/studies.db")
    if request.param == "demo":
        pytest.importorskip("gradio", reason="`make demo` installs Gradio")
    running = Running(root, [request.param, f"--port={port}"], log, real=True)
    url = f"http://127.0.0.1:{port}"
    while not answer(url)[0]:
        assert running.wait(1) is None, log.read_text(encoding="utf-8")[-3000:]
    yield request.param, url, running.pid
    running.send(signal.SIGTERM)
    assert running.wait(60) is not None


def test_a_server_listens_on_127_0_0_1_and_shows_no_other_file(server: tuple[str, str, int]) -> None:
    name, url, pid = server
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    connections = [one for process in processes for one in process.net_connections("inet")]
    hosts = {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    assert hosts == {"127.0.0.1"}
    for path in ("/", "/gradio_api/file=", "/get-artifact?run_uuid=0&path=", "/static/", "/static-files/"):
        assert b"root:" not in answer(f"{url}{path}{SECRET}")[1]
        assert b"root:" not in answer(f"{url}{path}/etc/passwd")[1]
    if name == "demo":
        assert upload(url, 1_000) == 200
        assert upload(url, 60_000_000) in (413, 0)  # or the connection ends before all is sent
        assert answer(url)[0] == 200
    FIGURES.update(["checks of security"])


class Evil:
    """Whoever unpickles this creates a file."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("form", ["zip", "plain"])
def test_a_pickled_checkpoint_runs_no_code(form: str, place: Place, log: Path) -> None:
    root, plain, packed = place(), pickle.dumps({"weight": Evil()}), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/../../escaped", "x")
    content = packed.getvalue() if form == "zip" else plain
    (root / "evil.pt").write_bytes(content)
    (root / "mine").mkdir()
    (root / "mine" / "ip-adapter.safetensors").write_bytes(content)
    for words in (
        ("convert", f"--world={WORLD}", "evil.pt", "new"),
        ("personalize", "--prompt=a photo", "--out=new", "--encoder=mine", f"models/{WORLD}/portraits/test/000/0.jpg"),
    ):
        done = run(root, words, log)
        assert done.code == 1 and "error: " in done.said and "Traceback" not in done.said, done.said[-2000:]
    assert not list(root.rglob("owned")) and not list(root.parent.rglob("escaped"))
    FIGURES.update(["checks of security"])


def test_a_portrait_that_is_sent_is_bounded() -> None:
    small = write_base64(Image.new("RGB", (1, 1)))
    assert read_base64(small).size == (1, 1)
    with pytest.raises(InputError, match=f"{LONGEST + 1} characters, {LONGEST} may be sent"):
        read_base64(small + "A" * (LONGEST + 1 - len(small)))
    FIGURES.update(["checks of security"])


def test_no_module_unpickles_or_unpacks() -> None:
    """The one exception reads tensors alone."""
    calls = set[tuple[str, str]]()
    for path in [*SOURCE.rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name, text = ast.unparse(node.func), ast.unparse(node)
                if name in ("eval", "exec") or name.startswith(("pickle", "joblib", "tarfile")) or "unpack" in name:
                    calls.add((path.name, name))
                if name.endswith("extractall"):
                    calls.add((path.name, name))
                if name in ("torch.load", "np.load", "numpy.load") and "weights_only=True" not in text:
                    calls.add((path.name, name))
    assert calls == set()
    FIGURES.update(["checks of security"])


def test_reports_escape_names_captions_and_prompts(place: Place, log: Path) -> None:
    root = place()
    tree = yaml.safe_load((root / f"prompts/{WORLD}.yaml").read_text(encoding="utf-8"))
    tree["styles"][HTML] = f"a drawing {HTML}"
    (root / f"prompts/{WORLD}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    people = root / f"models/{WORLD}/portraits/test"
    for path in sorted(people.iterdir()):
        path.rename(people / f"{path.name}{HTML}")
    write_protocol(root / f"protocols/{WORLD}.yaml", f"models/{WORLD}/portraits", **PROTOCOL | {"photo_prompts": 2})
    done = run(root, ["evaluate"], log)
    assert done.code == 0, done.said[-3000:]
    labels = [f"--label={HTML}1", f"--label={HTML}2"]
    compared = run(root, ["compare", *labels, *[f"runs/{WORLD}/evaluate"] * 2], log)
    assert compared.code == 0, compared.said[-3000:]
    for page in (root / f"runs/{WORLD}/evaluate/report.html", root / "compare.html"):
        text = page.read_text(encoding="utf-8")
        assert HTML not in text and "&lt;img src=x" in text, page
    FIGURES.update(["checks of security"])
