"""The headers of all checkpoints of a run, fetched at once: one by one they take minutes."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from rankscope.checkpoints.files.file_names import is_called_weights
from rankscope.checkpoints.limits import MAX_HEADER
from rankscope.checkpoints.links import RESUMED
from rankscope.checkpoints.remote.listings import Objects, read_listing
from rankscope.checkpoints.remote.opening import source_of
from rankscope.checkpoints.remote.remote_file import AHEAD, Remote
from rankscope.checkpoints.remote.web_source import CONNECTIONS
from rankscope.errors import RankscopeError

SMALL = (".json", ".yaml", ".yml", ".toml", "")  # suffixes of what a survey reads whole
ZIPS = (".pt", ".pth", ".bin", ".ckpt", ".npz", ".zip", ".tar", ".th")
TAIL = 2**16 + 22  # bytes at the end of a zip in which the list of its entries is looked for


def fetch_headers(home: Path, root: Path, place: str, objects: Objects) -> None:
    """Fetch what a survey will read of the objects below a folder of stand-ins.

    Errors are left to their readers.
    """
    listing = read_listing(root, place)
    if listing is None:
        return
    source = source_of(listing.scheme, root, place)
    wanted = {
        entry.identity: Remote(str(home / name), entry, source, root, place)
        for name, entry in objects.items()
        if entry.size and _is_opened(PurePosixPath(name), entry.size)
    }
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(_fetch_header, wanted.values()))


def _is_opened(path: PurePosixPath, size: int) -> bool:
    """Whether a survey opens such a file: settings and weights, not what only training reads."""
    if RESUMED.match(path.name):
        return False
    is_small = size <= AHEAD and path.suffix.lower() in SMALL
    return is_small or is_called_weights(Path(path.name))


def _fetch_header(remote: Remote) -> None:
    size, suffix = remote.entry.size, PurePosixPath(remote.path).suffix.lower()
    ranges = [(0, min(size, AHEAD))]
    if suffix in ZIPS:
        ranges.append((max(size - TAIL, 0), size))
    with contextlib.suppress(RankscopeError, OSError):
        for bounds in remote.missing(ranges):
            remote.fetch(*bounds)
        start = remote.cache.get(0, min(size, AHEAD)) or b""
        length = 8 + int.from_bytes(start[:8], "little")
        if start[8:9] == b"{" and AHEAD < length <= min(size, MAX_HEADER):
            for bounds in remote.missing([(AHEAD, length)]):
                remote.fetch(*bounds)
