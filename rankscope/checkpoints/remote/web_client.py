"""HTTP with ranges, redirections and retries, by the standard library alone.

Nothing is believed that the answer does not say: a server that ignores a range is noticed, and so
is one that answers with another range, another version, or fewer bytes.
"""

from __future__ import annotations

import base64
import http.client
import re
import ssl
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from http.client import HTTPMessage
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from rankscope.addresses import WEB, shown
from rankscope.checkpoints.limits import size_text
from rankscope.checkpoints.remote.objects import Changed
from rankscope.checkpoints.remote.retries import Transient, patiently
from rankscope.errors import RankscopeError, printable

TIMEOUT = 30.0  # seconds without a byte
WHOLE = 2 * 10**9  # bytes of an object that is fetched as a whole where a server has no ranges
MOST = 2**26  # bytes of a page or a listing
AGAIN = (408, 425, 429, 500, 502, 503, 504)
FORBIDDEN, MISSING, CHANGED = (401, 403, 407), (404, 410), (412, 416)
# What the hub says of a refusal, and of the seconds until its next one would be no refusal.
ERROR_CODE = "X-Error-Code"
REFUSED = {
    "GatedRepo": "; it is gated: ask for access on its page",
    "RepoNotFound": "; it is private, or does not exist",
}
RESET = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})")
CUT = (URLError, ConnectionError, TimeoutError, http.client.HTTPException)
# What a server of another protocol answers, and what a connection ends with that is dropped.
NOT_THIS_PROTOCOL = (ssl.SSLError, http.client.BadStatusLine)
DROPPED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ConnectionError)
RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes
    ----------
    url
        Where it came from, after redirections.
    """

    url: str
    status: int
    headers: Message
    body: bytes

    @property
    def size(self) -> int | None:
        """Bytes of the whole object, if the answer says so."""
        found = RANGE.fullmatch(self.headers.get("Content-Range", ""))
        if found is not None:
            return int(found[3]) if found[3] != "*" else None
        length = self.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() and self.status == 200 else None

    @property
    def version(self) -> str:
        """What would differ if the object did; empty if the server says nothing of the kind."""
        tags = (self.headers.get(name, "") for name in ("ETag", "Last-Modified"))
        return next(filter(None, tags), "")


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    credentials: str = "",
    whole: int = MOST,
) -> Answer:
    """Ask a server, several times if need be.

    Parameters
    ----------
    secrets
        Headers that no other host may see if the server redirects there.
    credentials
        What was looked for to be let in, as the error about a refusal says it.
    whole
        The most bytes of an answer that is not a range.

    Raises
    ------
    RankscopeError
        With the reason ``permission``, ``missing``, ``connection`` or ``no-ranges``.
    Changed
        If the server refuses a range or a condition.
    """
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    clean = urlunsplit(parts._replace(netloc=host, path=quote(parts.path, safe="/%:@!$&'()*+,;=~")))
    known = dict(secrets or {})
    if login:
        known["Authorization"] = "Basic " + base64.b64encode(unquote(login).encode()).decode()
    request = Request(clean, method=method, headers={"Accept-Encoding": "identity"})
    for name, value in {"User-Agent": "rankscope", **(headers or {})}.items():
        request.add_header(name, value)
    for name, value in known.items():
        request.add_unredirected_header(name, value)
    looked_for = credentials or ("the user in the address" if login else "none in the address")
    return patiently(lambda: _answer(request, looked_for, whole), host=host, address=shown(url))


def _answer(request: Request, credentials: str, whole: int) -> Answer:
    address = shown(request.full_url)
    try:
        with _opener().open(request, timeout=TIMEOUT) as response:
            return _read(response, request, address, whole)
    except HTTPError as error:
        with error:
            raise _refusal(error, address, credentials) from None
    except http.client.InvalidURL:  # of a redirection: it may hold a password
        message = "leads to an address that cannot be read"
        raise RankscopeError(message, path=address, reason="outside") from None
    except CUT as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            message = (
                f"has an invalid certificate ({reason.verify_message}): the trusted authorities "
                "are those of this machine, or of the file in SSL_CERT_FILE"
            )
            raise RankscopeError(message, path=address, reason="permission") from None
        if isinstance(reason, NOT_THIS_PROTOCOL) and not isinstance(reason, DROPPED):
            scheme = urlsplit(request.full_url).scheme
            other = next(one for one in WEB if one != scheme)
            said = printable(str(getattr(reason, "reason", reason)), limit=80)
            message = f"is on a server that does not answer in {scheme} ({said}): try {other}://"
            raise RankscopeError(message, path=address) from None
        raise Transient(printable(str(reason) or type(reason).__name__, limit=80)) from None


def _read(response: IO[bytes], request: Request, address: str, whole: int) -> Answer:
    """The answer with its body, which is not begun if it would be too long."""
    answer = Answer(response.url, response.status, response.headers, b"")  # type: ignore[attr-defined]
    is_range = answer.status == 206 and request.has_header("Range")
    if request.has_header("Range") and not is_range and (answer.size or 0) > whole:
        size = size_text(answer.size or 0)
        raise RankscopeError(
            f"is on a server that does not serve parts of a file, and it has {size}, more than "
            f"the {size_text(whole)} that are fetched as a whole: download it",
            path=address,
            reason="no-ranges",
        )
    most = _asked(request) if is_range else whole
    body = response.read(most + 1)
    if len(body) > most:
        message = f"answers with more than {size_text(most)}, the most that was asked for"
        raise RankscopeError(message, path=address, reason="over-limit")
    length = response.headers.get("Content-Length", "")  # type: ignore[attr-defined]
    if request.method != "HEAD" and length.isdecimal() and len(body) < int(length):
        raise Transient(f"the connection ended after {len(body)} of {length} bytes")
    return Answer(answer.url, answer.status, answer.headers, body)


def _asked(request: Request) -> int:
    """How many bytes a request asked for."""
    first, _, last = str(request.get_header("Range")).removeprefix("bytes=").partition("-")
    return int(last) - int(first) + 1


def _refusal(error: HTTPError, address: str, credentials: str) -> Exception:
    if error.code in AGAIN:
        return Transient(f"HTTP {error.code}", _asked_to_wait(error.headers))
    if error.code in CHANGED:
        return Changed(f"HTTP {error.code}")
    if error.code in FORBIDDEN:
        why = REFUSED.get(error.headers.get(ERROR_CODE, ""), "")
        message = f"may not be read (HTTP {error.code}; credentials looked for: {credentials}{why})"
        return RankscopeError(message, path=address, reason="permission")
    if 300 <= error.code < 400:
        message = "leads to itself, or to a place that is not on the web, which is not followed"
        return RankscopeError(message, path=address, reason="outside")
    if error.code in MISSING:
        message = f"is not there (HTTP {error.code})"
        return RankscopeError(message, path=address, reason="missing")
    return RankscopeError(f"cannot be fetched (HTTP {error.code})", path=address)


def _asked_to_wait(headers: Message) -> float | None:
    """Seconds after which a server wants to be asked again."""
    asked = headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    found = RESET.search(headers.get("RateLimit", ""))  # `"api";r=0;t=55`
    return float(found[1]) + 1.0 if found else None  # the seconds are rounded


class _Redirects(HTTPRedirectHandler):
    """Follows redirections to the web only, and shows secrets to the first host only."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in WEB or (old.scheme, new.scheme) == ("https", "http"):
            fp.close()
            message = f"leads to {new.scheme}://, which is not followed from {old.scheme}://"
            raise RankscopeError(message, path=shown(req.full_url), reason="outside")
        followed = super().redirect_request(req, fp, code, msg, headers, newurl)
        if followed is not None:
            followed.method = req.get_method()
            if new.netloc == old.netloc:
                for name, value in req.unredirected_hdrs.items():
                    if name == "Authorization":
                        followed.add_unredirected_header(name, value)
        return followed


@lru_cache(maxsize=1)  # reading the certificates of this machine takes longer than an answer
def _opener() -> OpenerDirector:
    """Opens ``http`` and ``https`` alone: no local files, no FTP."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        _Redirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
