"""A hub on this machine, as huggingface_hub speaks with it, and for insightface; with faults on demand."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.rehearsal import MANIFEST

BLOCK = 1 << 20
UNPINNED = "c" * 40  # the commit of `main`


class Hub(ThreadingHTTPServer):
    """Serves the repositories below a folder.

    `stall` names a file of which half is sent, and then nothing; of the file `wrong` one byte differs; `sent` has what
    was asked for, and from which byte on.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        """Serve on a free port of 127.0.0.1."""
        self.root, self.sent = root, list[tuple[str, int]]()
        self.files: dict[str, str] = json.loads((root / MANIFEST).read_bytes())
        self.stall = self.wrong = ""
        self.stalled, self.released = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no error."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, _format: str, *_rest: object) -> None:
        """Write nothing."""

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """A repository's files, one file, or an archive."""
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            return self._answer(json.dumps(self._repository(path)).encode())
        match = re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, commit = (f"{match[1]}/{match[3]}", match[2]) if match else (path, UNPINNED)
        if name not in self.server.files:
            return self._answer(b"{}", 404, {"X-Error-Code": "EntryNotFound"})
        return self._file(name, commit if re.fullmatch("[0-9a-f]{40}", commit) else UNPINNED)

    def _answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        plain = {"Content-Length": str(len(content)), "Content-Type": "application/json"}
        for key, value in (plain | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _repository(self, path: str) -> object:
        """A repository's tree, or its description."""
        _, _, owner, name, *rest = path.split("/")
        tree = []
        for file, digest in self.server.files.items():
            if file.startswith(f"{owner}/{name}/"):
                size, short = (self.server.root / file).stat().st_size, file.removeprefix(f"{owner}/{name}/")
                lfs = {"oid": digest, "size": size, "pointerSize": 1}
                tree.append({"type": "file", "path": short, "oid": digest[:40], "size": size, "lfs": lfs})
        if rest[:1] == ["tree"]:
            return tree
        commit = rest[1] if len(rest) > 1 and re.fullmatch("[0-9a-f]{40}", rest[1]) else UNPINNED
        return {"id": f"{owner}/{name}", "sha": commit, "siblings": [{"rfilename": file["path"]} for file in tree]}

    def _file(self, name: str, commit: str) -> None:
        path, asked = self.server.root / name, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        size = path.stat().st_size
        start, last = (int(asked[1]), int(asked[2] or size - 1)) if asked else (0, size - 1)
        self.send_response(206 if asked else 200)
        etag = f'"{self.server.files[name]}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes", "X-Linked-Size": str(size)}
        headers |= {"X-Linked-Etag": etag, "Content-Length": str(last - start + 1)}
        headers |= {"Content-Range": f"bytes {start}-{last}/{size}"} if asked else {}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.server.sent.append((name, start))
            with suppress(OSError):
                self._send(path, name, start, last + 1)

    def _send(self, path: Path, name: str, start: int, end: int) -> None:
        """Send bytes from `start` to before `end`."""
        sent, half = start, path.stat().st_size // 2
        with path.open("rb") as file:
            file.seek(start)
            while sent < end:
                if name == self.server.stall and sent >= half:
                    self.server.stalled.set()
                    self.server.released.wait()
                    self.close_connection = True
                    return
                block = bytearray(file.read(min(BLOCK, end - sent, half - sent if sent < half else BLOCK)))
                if name == self.server.wrong and sent == half:
                    block[0] ^= 1
                self.wfile.write(block)
                sent += len(block)


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub for as long as the block lasts."""
    hub = Hub(root)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        hub.shutdown()
        hub.server_close()
        thread.join()
