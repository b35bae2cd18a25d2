"""Opening stand-ins: which object one stands for, and reading that in its place."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from rankscope.addresses import ELSEWHERE, WEB
from rankscope.checkpoints.file_states import changed
from rankscope.checkpoints.remote.bucket_source import BucketSource
from rankscope.checkpoints.remote.hub_source import HubSource
from rankscope.checkpoints.remote.listings import SECRETS, place_of, read_listing
from rankscope.checkpoints.remote.objects import Source
from rankscope.checkpoints.remote.remote_file import Remote, RemoteFile
from rankscope.checkpoints.remote.web_source import WebSource
from rankscope.errors import RankscopeError


def opened(path: str | Path, descriptor: int) -> RemoteFile:
    """A stand-in that is open, as a file with the content of its object.

    Raises
    ------
    RankscopeError
        With the reason ``changed-while-reading``, if its object was listed anew and has changed.
    """
    return RemoteFile(descriptor, remote_of(path, os.fstat(descriptor)))


def fetch_ahead(ranges: Mapping[str, Iterable[tuple[int, int]]]) -> None:
    """Fetch ranges of stand-ins that will be read, near ones as one and several at once.

    Errors are left to their readers.
    """
    for path, wanted in ranges.items():
        with contextlib.suppress(RankscopeError, OSError):
            remote_of(path, Path(path).stat()).fetch_all(wanted)


def remote_of(path: str | Path, status: os.stat_result) -> Remote:
    """What reads the object of a stand-in, found by its path, size and stamp.

    Raises
    ------
    RankscopeError
        With the reason ``changed-while-reading``, if no listing has it as it is.
    """
    real = Path(os.path.realpath(path))
    above = [folder for folder in real.parents if ELSEWHERE in folder.parts]
    root = above[-1].parent
    for folder in above:
        place = place_of(root, folder)
        listing = read_listing(root, place)
        entry = listing and listing.objects.get(real.relative_to(folder).as_posix())
        now = status.st_size, int(status.st_mtime)
        if listing and entry and (entry.size, entry.stamp) == now:
            source = source_of(listing.scheme, root, place)
            return Remote(str(path), entry, source, root, place)
    raise changed(path)


def source_of(scheme: str, root: Path, place: str) -> Source:
    """What reads the objects of a place."""
    if scheme == "hf":
        return HubSource()
    if scheme not in WEB:
        return BucketSource(scheme)
    with contextlib.suppress(OSError):
        login, query = json.loads((root / SECRETS / f"{place}.json").read_bytes())
        return WebSource(login, query)
    return WebSource()
