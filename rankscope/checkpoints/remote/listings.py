"""What was listed at a place elsewhere, kept so that every process can read its stand-ins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path

from rankscope import durable
from rankscope.addresses import ELSEWHERE
from rankscope.checkpoints.remote.objects import Entry
from rankscope.checkpoints.remote.range_cache import LISTINGS

SECRETS = "secrets"  # folder for what an address has before its host and behind its ?
Objects = Mapping[str, Entry]


@dataclass(frozen=True)
class Listing:
    """The objects of a place by the paths of their stand-ins below its folder."""

    scheme: str
    objects: Objects


def place_of(root: Path, folder: Path) -> str:
    """A name for the place that a folder of stand-ins stands for."""
    below = folder.relative_to(root / ELSEWHERE).as_posix()
    return hashlib.blake2b(below.encode(errors="surrogateescape"), digest_size=12).hexdigest()


def read_listing(root: Path, place: str) -> Listing | None:
    """The last listing of a place; None if it was never listed."""
    path = root / LISTINGS / f"{place}.json"
    try:
        status = path.stat()
    except OSError:
        return None
    return _parsed(path, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=32)
def _parsed(path: Path, _modified: int, _inode: int) -> Listing:
    content = json.loads(path.read_bytes())
    return Listing(content["scheme"], _entries(content["objects"]))


def write_listing(root: Path, place: str, listing: Listing) -> None:
    """Write a listing if it differs from the one before, ahead of the stand-ins that follow it."""
    if read_listing(root, place) != listing:
        content = {"scheme": listing.scheme, "objects": _plain(listing.objects)}
        durable.write_file(root / LISTINGS / f"{place}.json", json.dumps(content).encode())


def read_tree(root: Path, name: str) -> dict[str, Entry] | None:
    """The files of a commit, which never change; None if it was never listed."""
    path = _tree(root, name)
    return _entries(json.loads(path.read_bytes())) if path.is_file() else None


def write_tree(root: Path, name: str, files: Objects) -> None:
    """Keep the files of a commit."""
    if not _tree(root, name).is_file():
        durable.write_file(_tree(root, name), json.dumps(_plain(files)).encode())


def _tree(root: Path, name: str) -> Path:
    digest = hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
    return root / LISTINGS / f"tree-{digest}.json"


def _plain(objects: Objects) -> dict[str, tuple[object, ...]]:
    return {name: astuple(entry) for name, entry in sorted(objects.items())}


def _entries(objects: Mapping[str, tuple[str, int, str, str]]) -> dict[str, Entry]:
    return {name: Entry(*about) for name, about in objects.items()}


def keep_secrets(root: Path, place: str, secrets: tuple[str, str]) -> None:
    """Keep what an address has before its host and behind its ``?`` where only its user reads it.

    The workers need them to read the place.
    """
    path = root / SECRETS / f"{place}.json"
    if not any(secrets):
        path.unlink(missing_ok=True)
        return
    durable.make_folder(root)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    durable.write_file(path, json.dumps(secrets).encode())
