"""Addresses of what lies elsewhere, such as ``s3://bucket/run``, and the paths that stand for them.

A run that lies elsewhere has a folder here whose files are stand-ins: they have the names and sizes
of its files, but no content (`rankscope.checkpoints.remote`). Messages, tables and records show the
address instead of the path of the stand-in, and never a password or a signature.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

ELSEWHERE = "rankscope-elsewhere"  # the folder in the cache that holds all stand-ins
WHOLE_MODEL = "@"  # in place of a revision, where none was asked for: no revision is called so
HUB = "models--"  # begins the folder of a model of the hub
COLON = "%3A"  # in the folder of a host with a port: no name on Windows has a colon
# `Path` makes s3:/bucket/run of s3://bucket/run, and on Windows s3:\bucket\run, which `_text` turns
# back; a single letter would be a drive of Windows.
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>[^/].*)", re.DOTALL)
WEB = ("http", "https")
HOST = re.compile(r"([^/?#@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]+)(:\d*)?")  # with its user
PASSWORD = re.compile(r"[^/@:]*:[^/@]*@")
STAND_IN = re.compile(rf".*[\\/]{ELSEWHERE}[\\/](?P<scheme>[^\\/]+)[\\/](?P<rest>.+)", re.DOTALL)
BRANCH = re.compile(rf"[^\\/]+[\\/]{HUB}[^\\/]+[\\/]refs[\\/]")
SNAPSHOT = re.compile(
    rf"(?P<view>[^/]+)/{HUB}(?P<name>[^/]+)(?:/snapshots/(?P<commit>[^/]+)(?P<below>.*))?"
)


def is_address(path: str | Path) -> bool:
    """Whether a path that was given is an address of something elsewhere.

    Examples
    --------
    >>> is_address("s3://bucket/run"), is_address(Path("hf://ORG/NAME")), is_address("ckpts/relora")
    (True, True, False)
    """
    return ADDRESS.fullmatch(_text(path)) is not None


def is_stand_in(path: str | Path) -> bool:
    """Whether a path is that of a stand-in, whose bytes lie elsewhere.

    The branches of a model of the hub, each a file with a commit, are not.
    """
    found = STAND_IN.fullmatch(str(path)) if ELSEWHERE in str(path) else None
    return found is not None and not (found["scheme"] == "hf" and BRANCH.match(found["rest"]))


def scheme_and_rest(address: str | Path) -> tuple[str, str]:
    """What is before and behind the ``://`` of an address; ValueError for anything else."""
    found = ADDRESS.fullmatch(_text(address))
    if found is None:
        raise ValueError(f"{address} is not an address")
    return found["scheme"].lower(), found["rest"]


def without_secrets(scheme: str, rest: str) -> str:
    """The rest of an address without what may be secret: the user before its host, the query.

    A password with characters that end a host is cut off as well, with all before it.
    """
    if scheme not in WEB:
        return PASSWORD.sub("", rest, count=1) if PASSWORD.match(rest) else rest
    if not is_web(rest):
        rest = rest.rpartition("@")[2]
    host, slash, below = rest.partition("/")
    return host.rpartition("@")[2] + slash + re.split(r"[?#]", below, maxsplit=1)[0]


def is_web(rest: str) -> bool:
    """Whether the rest of a web address begins with a host that can be read."""
    return HOST.fullmatch(rest.partition("/")[0]) is not None


def shown(path: str | Path) -> str:
    """A path as messages and tables show it: for a stand-in, and for an address, the address.

    Examples
    --------
    >>> shown("ckpts/relora")
    'ckpts/relora'
    >>> shown(f"/home/me/.cache/rankscope/{ELSEWHERE}/s3/bucket/run/step-10")
    's3://bucket/run/step-10'
    >>> shown("https://me:password@host/model.safetensors?signature=1")
    'https://host/model.safetensors'
    """
    text = str(path)
    if ELSEWHERE in text and (found := STAND_IN.fullmatch(text)):
        rest = found["rest"].replace("\\", "/")
        in_hub = SNAPSHOT.fullmatch(rest) if found["scheme"] == "hf" else None
        if in_hub is None:
            host, slash, below = rest.partition("/")
            return f"{found['scheme']}://{host.replace(COLON, ':')}{slash}{below}"
        revision = in_hub["commit"] or in_hub["view"].replace(WHOLE_MODEL, "")
        at = f"@{revision}" if revision else ""
        return f"hf://{in_hub['name'].replace('--', '/')}{at}{in_hub['below'] or ''}"
    if found := ADDRESS.fullmatch(_text(path)):
        scheme = found["scheme"].lower()
        return f"{scheme}://{without_secrets(scheme, found['rest'])}"
    return text


def _text(path: str | Path) -> str:
    """A path as an address is written, with ``/`` on every system."""
    return path.as_posix() if isinstance(path, PurePath) else path
