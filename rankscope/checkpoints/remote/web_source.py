"""Runs on web servers: one file, or a folder whose page lists what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from typing_extensions import override

from rankscope.checkpoints.limits import over_limit
from rankscope.checkpoints.remote.objects import Changed, Entry
from rankscope.checkpoints.remote.web_client import MOST, RANGE, WHOLE, Answer, ask
from rankscope.errors import RankscopeError

CONNECTIONS = 16
MOST_PAGES = 20_000
NO_HEAD = ("permission", "unreadable")  # some servers, and signatures, allow GET only


@dataclass(frozen=True)
class WebSource:
    """Reads objects by their addresses.

    Attributes
    ----------
    login, query
        What an address has before its host, and behind its ``?``: they may be secret, and go into
        no message and no key.
    secrets
        Headers that only the host of an address may see.
    credentials
        What was looked for, in words.
    """

    login: str = ""
    query: str = ""
    secrets: tuple[tuple[str, str], ...] = ()
    credentials: str = ""

    def read(self, entry: Entry, start: int, stop: int) -> bytes:
        """Bytes ``start:stop`` of an object, or all of it; see `Source`."""
        answer = self.ask(entry.where, start=start, stop=stop)
        if answer.size not in (entry.size, None) or self.version_of(answer) != entry.version:
            raise Changed("its size or version differs")
        if answer.status == 206:
            found = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if found is None or found[1] is None or int(found[1]) != start:
                message = "answers with another range than was asked for"
                raise RankscopeError(message, path=entry.where, reason="no-ranges")
        if len(answer.body) != (stop - start if answer.status == 206 else entry.size):
            raise Changed("its size differs")
        return answer.body

    def ask(
        self, where: str, *, method: str = "GET", start: int | None = None, stop: int = 0
    ) -> Answer:
        """Ask for an object, or for some of its bytes."""
        parts = urlsplit(where)
        netloc = f"{self.login}@{parts.netloc}" if self.login else parts.netloc
        url = urlunsplit(parts._replace(netloc=netloc, query=self.query or parts.query))
        headers = {} if start is None else {"Range": f"bytes={start}-{stop - 1}"}
        return ask(
            url,
            method=method,
            headers=headers,
            secrets=dict(self.secrets),
            credentials=self.credentials,
            whole=MOST if start is None else WHOLE,
        )

    def version_of(self, answer: Answer) -> str:
        """The version that an answer states."""
        return answer.version

    def listed(self, address: str) -> tuple[dict[str, Entry], bool]:
        """The objects below an address by their paths, and whether it is a single object."""
        if not self.query:
            found = self._folder(address)
            if found:
                return found, False
        entry = self._entry(address)
        return {unquote(address.rpartition("/")[2]): entry}, True

    def _folder(self, address: str) -> dict[str, Entry]:
        """The objects below a folder; none if its address is not that of a page of links."""
        base = address.rstrip("/") + "/"
        try:
            first = self.ask(base)
        except RankscopeError as error:
            if error.reason not in ("missing", "unreadable"):
                raise
            return {}
        if not _is_page(first):
            return {}
        files = list(self._walk(base, first))
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            entries = pool.map(self._entry, files)
            return {
                unquote(file.removeprefix(base)): entry
                for file, entry in zip(files, entries, strict=True)
            }

    def _walk(self, base: str, first: Answer) -> Iterator[str]:
        """Addresses of all files in a folder and the folders in it."""
        seen, waiting = {base}, [first]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            while waiting:
                links = {link for page in waiting for link in _links(page)} - seen
                seen |= links
                folders = sorted(link for link in links if link.endswith("/"))
                if len(seen) > MOST_PAGES * 10 or len(folders) > MOST_PAGES:
                    raise over_limit("has more files than any run")
                yield from sorted(links - set(folders))
                waiting = [page for page in pool.map(self.ask, folders) if _is_page(page)]

    def _entry(self, where: str) -> Entry:
        """What a server says about one object, without its bytes."""
        answer: Answer | None = None
        if not self.query:
            try:
                answer = self.ask(where, method="HEAD")
            except RankscopeError as error:
                if error.reason not in NO_HEAD:
                    raise
        if answer is None or answer.size is None:
            try:
                answer = self.ask(where, start=0, stop=1)
            except Changed:  # there is no first byte
                return Entry(where, 0, "empty")
        if answer.size is None:
            message = "is of a size that its server does not state, so no part of it can be found"
            raise RankscopeError(message, path=where, reason="no-ranges")
        return Entry(where, answer.size, self.version_of(answer))


def _is_page(answer: Answer) -> bool:
    return answer.headers.get_content_type() == "text/html"


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def _links(page: Answer) -> set[str]:
    """Addresses right below that of a page; all others, also of other hosts, are ignored."""
    parser = _Anchors()
    parser.feed(page.body.decode(errors="replace"))
    base = page.url.split("?")[0]
    links = set()
    for target in parser.targets:
        link = urljoin(base, target)
        below = link.removeprefix(base)
        name = unquote(below.rstrip("/"))
        is_plain = not any(c in below for c in "?#") and not any(c in name for c in "/\\\0")
        if name not in ("", ".", "..") and is_plain:
            links.add(link)
    return links
