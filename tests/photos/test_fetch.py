"""Portraits from a list, over a server on this machine: resuming, checksums, one error with every line that failed."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image
from typer.testing import CliRunner

from lookahead import cli
from lookahead.errors import InputError
from lookahead.photos.fetch import Photo, fetch, read_list
from lookahead.portraits import read_people


class Counting(SimpleHTTPRequestHandler):
    """Serves a folder and keeps what was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, _format: str, *_rest: object) -> None:
        """Keep the address, write nothing."""
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder that is served: two JPEG files, a PNG, a text, a bitmap."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, shade in (("a.jpg", 10), ("b.jpg", 90), ("c.png", 200), ("d.bmp", 7)):
        Image.new("RGB", (16, 16), (shade, 0, 0)).save(folder / name)
    (folder / "e.jpg").write_text("this is no picture")
    return folder


@pytest.fixture
def server(served: Path) -> Iterator[str]:
    Counting.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Counting, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_photos_become_folders_that_the_evaluation_reads(server: str, served: Path, tmp_path: Path) -> None:
    lines = [f"{server}/{name},{digest(served / name)}" for name in ("a.jpg", "c.png")]
    out = tmp_path / "portraits"
    fetch(read_list(write_list(tmp_path / "l.csv", "url,sha256", *lines)), out, str)
    people = read_people(out, 2)
    assert [person.reference.relative_to(out).as_posix() for person in people] == ["000/0.jpg", "001/0.png"]
    assert people[0].reference.read_bytes() == (served / "a.jpg").read_bytes()


def test_what_is_there_is_not_asked_for_again_and_a_damaged_file_is(server: str, served: Path, tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg")  # of one person
    photos = [Photo(line, f"{server}/{name}", digest(served / name), "ada") for line, name in enumerate(names, 2)]
    said, out = [], tmp_path / "out"
    fetch(photos, out, said.append)
    assert len(said) == 2
    fetch(photos, out, said.append)
    assert len(said) == len(Counting.asked) == 2
    (person,) = read_people(out, 1)
    (other,) = person.others
    other.write_bytes(b"cut")
    fetch(photos, out, said.append)
    assert Counting.asked.count("/b.jpg") == 2 and Counting.asked.count("/a.jpg") == 1
    assert (digest(person.reference), digest(other)) == tuple(photo.sha256 for photo in photos)


def test_every_failing_line_is_named_once_and_the_others_are_there(server: str, served: Path, tmp_path: Path) -> None:
    names = ["a.jpg", "none.jpg", "b.jpg", "d.bmp", "e.jpg"]
    sums = [digest(served / "a.jpg"), "0" * 64, "1" * 64, digest(served / "d.bmp"), digest(served / "e.jpg")]
    lines = [f"{server}/{name},{total}" for name, total in zip(names, sums, strict=True)]
    listed = read_list(write_list(tmp_path / "l.csv", "url,sha256", *lines, f"http://127.0.0.1:1/x,{'2' * 64}"))
    with pytest.raises(InputError, match="5 of 6 photos failed") as caught:
        fetch(listed, tmp_path / "out", str)
    said = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in said[1:]] == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    for line, words in zip(said[1:], ("404", f"not {'1' * 64}", "identify", "identify", "refused"), strict=True):
        assert words in line
    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")] == ["000/0.jpg"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has to begin with"),
        (["url,sha256"], "hold a photo a line"),
        (["address,sha256", "http://a/b,0"], "has to begin with"),
        (["url,sha256", "ftp://a/b.jpg," + "0" * 64], "line 2: 'ftp://a/b.jpg' is no http"),
        (["url,sha256", "http://a/b.jpg,abc"], "line 2: 'abc' is no SHA-256"),
        (["person,url,sha256", "../x,http://a/b.jpg," + "0" * 64], "line 2: '../x' is no name"),
    ],
)
def test_a_wrong_list_is_one_error(lines: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_list(write_list(tmp_path / "l.csv", *lines))
    assert said in str(caught.value)


def test_the_command(server: str, served: Path, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "l.csv", "url,sha256", f"{server}/a.jpg,{digest(served / 'a.jpg')}")
    done = CliRunner().invoke(cli.app, ["fetch", str(listed), str(tmp_path / "out")])
    assert done.exit_code == 0 and "1 photos of 1 people are in" in done.output
    missing = CliRunner().invoke(cli.app, ["fetch", str(tmp_path / "none.csv"), str(tmp_path / "out")])
    assert isinstance(missing.exception, InputError) and "none.csv cannot be read" in str(missing.exception)
