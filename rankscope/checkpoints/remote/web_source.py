"""Runs on web servers: one file, or a folder whose page lists what is in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TypeVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from typing_extensions import override

from rankscope.addresses import shown
from rankscope.checkpoints.limits import over_limit
from rankscope.checkpoints.remote.objects import Changed, Entry
from rankscope.checkpoints.remote.web_client import MOST, RANGE, WHOLE, Answer, ask
from rankscope.errors import RankscopeError, RankscopeWarning

CONNECTIONS = 16
MOST_PAGES = 20_000
NO_HEAD = ("permission", "unreadable")  # some servers, and signatures, allow GET only
# Of an object that a page lists, such as a broken link. Where a connection fails, all may be there.
OF_ONE_OBJECT = ("missing", "permission", "unreadable", "no-ranges", "over-limit", "outside")

T = TypeVar("T")


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
                message = "answers with a range other than the one requested"
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
        """The objects below a folder; none if its address is not that of a page of links.

        Warns
        -----
        RankscopeWarning
            If something that a page lists cannot be fetched: it is left out.
        """
        base = address.rstrip("/") + "/"
        try:
            first = self.ask(base)
        except RankscopeError as error:
            if error.reason not in ("missing", "unreadable"):
                raise
            return {}
        if not _is_page(first):
            return {}
        page = first.url.split("?")[0]
        if unquote(page) != unquote(base):
            message = f"leads to {shown(page)}: give that address"
            raise RankscopeError(message, path=address, reason="outside")
        lost: list[RankscopeError] = []
        files = list(self._walk(page, first, lost))
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            entries = pool.map(_or_lost(self._entry, lost), files)
            found = {
                unquote(file.removeprefix(page)): entry
                for file, entry in zip(files, entries, strict=True)
                if entry is not None
            }
        if lost:
            message = f"{len(lost)} of what {shown(address)} lists cannot be fetched"
            warnings.warn(
                RankscopeWarning(f"{message} and is left out; the first: {min(map(str, lost))}"),
                stacklevel=6,
            )
        return found

    def _walk(self, base: str, first: Answer, lost: list[RankscopeError]) -> Iterator[str]:
        """Addresses of all files in a folder and the folders in it."""
        seen, waiting = {base}, [first]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            while waiting:
                links = {link for page in waiting for link in _links(page)} - seen
                links = {link for link in links if link.startswith(base)}  # pages may lead away
                seen |= links
                folders = sorted(link for link in links if link.endswith("/"))
                if len(seen) > MOST_PAGES * 10 or len(folders) > MOST_PAGES:
                    raise over_limit("has more files than any run")
                yield from sorted(links - set(folders))
                pages = pool.map(_or_lost(self.ask, lost), folders)
                waiting = [page for page in pages if page is not None and _is_page(page)]

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


def _or_lost(action: Callable[[str], T], lost: list[RankscopeError]) -> Callable[[str], T | None]:
    """The action, which gives None and keeps the error where a single object cannot be had."""

    def attempted(where: str) -> T | None:
        try:
            return action(where)
        except RankscopeError as error:
            if error.reason not in OF_ONE_OBJECT:
                raise
            lost.append(error)
            return None

    return attempted


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
