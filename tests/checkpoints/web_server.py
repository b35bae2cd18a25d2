"""A web server on this machine whose faults a test decides, and which counts what it sends."""

from __future__ import annotations

import hashlib
import html
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Site:
    """What a server has, and what it was asked.

    Attributes
    ----------
    files
        Content by path, which begins with a slash.
    answers
        Paths of anything but a file: a function of the handler sends the answer.
    faults
        By path, what happens instead at each next request of its bytes: a status, or ``cut``.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    has_ranges: bool = True
    has_versions: bool = True
    lists: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    authorisations: list[str] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, folder: Path, below: str = "/run") -> None:
        """Serve a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[f"{below}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()

    def clear(self) -> None:
        """Forget what was asked."""
        self.requests.clear()
        self.sent = 0

    def asked_for_bytes(self) -> list[tuple[str, str]]:
        """Paths and ranges of the requests for bytes of files."""
        return [(path, r) for method, path, r in self.requests if method == "GET" and r]


class Handler(BaseHTTPRequestHandler):
    """Answers from the site of its server."""

    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._do("HEAD")

    def do_GET(self) -> None:
        self._do("GET")

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            if self.headers.get("Range"):
                with self.site.lock:  # before the other side can go on
                    self.site.sent += len(body)
            self.wfile.write(body)

    def _do(self, method: str) -> None:
        site, path = self.site, unquote(self.path.partition("?")[0])
        site.requests.append((method, self.path, self.headers.get("Range", "")))
        site.authorisations.append(self.headers.get("Authorization", ""))
        fault = site.faults.get(path, [])
        if fault and (method == "GET" or fault[0] == 403):
            what = fault[0] if fault[0] in (403, "always") else fault.pop(0)
            if what in ("cut", "always"):
                self.reply(206, b"x", Content_Length="1000000")
                self.close_connection = True
            else:
                self.reply(int(what))
            return
        if path in site.answers:
            site.answers[path](self)
        elif path in site.files:
            self._file(site.files[path])
        elif site.lists and path.endswith("/"):
            self._page(path)
        else:
            self.reply(404)

    def _file(self, content: bytes) -> None:
        headers = {"Accept_Ranges": "bytes"} if self.site.has_ranges else {}
        if self.site.has_versions:
            headers["ETag"] = f'"{hashlib.md5(content).hexdigest()}"'
        asked = self.headers.get("Range", "")
        if not asked or not self.site.has_ranges:
            self.reply(200, content, **headers)
            return
        start, _, last = asked.removeprefix("bytes=").partition("-")
        if int(start) >= len(content):
            self.reply(416, Content_Range=f"bytes */{len(content)}")
            return
        part = content[int(start) : int(last) + 1]
        end = int(start) + len(part) - 1
        self.reply(206, part, Content_Range=f"bytes {start}-{end}/{len(content)}", **headers)

    def _page(self, path: str) -> None:
        below = {name.removeprefix(path) for name in self.site.files if name.startswith(path)}
        names = sorted({one.partition("/")[0] + "/" * ("/" in one) for one in below})
        if not names:
            self.reply(404)
            return
        links = "".join(f'<a href="{html.escape(name)}">{name}</a>' for name in ["../", *names])
        self.reply(200, links.encode(), Content_Type="text/html; charset=utf-8")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # a connection that is not taken at once waits for a second


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site on a free port of the loopback while the block runs."""
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
