"""Folders that stand for runs elsewhere: the door of this room.

`laid_out` lists what is at an address, and lays out files of the same names and sizes in the cache,
without content. All that looks at names, sizes and folders works on these as on any other. Whoever
opens one (`rankscope.checkpoints.tensors.open_regular`) gets a `RemoteFile`, which fetches what is
read of it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from rankscope.addresses import (
    COLON,
    ELSEWHERE,
    PASSWORD,
    WEB,
    is_address,
    is_web,
    scheme_and_rest,
    without_secrets,
)
from rankscope.checkpoints.remote import hub_stand_ins, ledger
from rankscope.checkpoints.remote.bucket_source import BucketSource
from rankscope.checkpoints.remote.headers import fetch_headers
from rankscope.checkpoints.remote.hollow_files import (
    can_be_file,
    can_be_path,
    lay_out,
    remove_others,
)
from rankscope.checkpoints.remote.hub_listing import HubAddress
from rankscope.checkpoints.remote.listings import (
    Listing,
    keep_secrets,
    place_of,
    read_listing,
    write_listing,
)
from rankscope.checkpoints.remote.objects import Entry
from rankscope.checkpoints.remote.range_cache import CACHE, cache_root, cache_size
from rankscope.checkpoints.remote.web_source import WebSource
from rankscope.durable import make_folder
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError

HERE = ("file", "local")  # schemes of what is on this machine


def laid_out(path: str | Path) -> Path:
    """The path itself; for an address, its stand-in, once everything there has been listed.

    Raises
    ------
    WrongSettingError
        If there is nothing at the address, or a package is missing that reads it.
    RankscopeError
        If it may not be read, or does not answer.
    """
    if not is_address(path):
        return Path(path)
    scheme, rest = scheme_and_rest(path)
    if scheme in HERE:
        return Path("/", rest)
    _require_cache()
    try:
        if scheme == "hf":
            return hub_stand_ins.laid_out(HubAddress.parsed(rest))
        return _laid_out(scheme, rest)
    except RankscopeError as error:
        if error.reason != "missing":
            raise
        raise WrongSettingError(error.message, path=path) from None


def _require_cache() -> None:
    """Show what is wrong with the settings of the cache before anything is fetched."""
    cache_size()
    root = cache_root()
    try:
        make_folder(root)
    except OSError as error:
        message = f"cannot be made ({error.strerror}): set {CACHE} to a folder that can be written"
        raise WrongSettingError(message, path=root) from None


def _path_of(scheme: str, address: str) -> Path:
    """The folder, or the file, that stands for an address without secrets."""
    parts = PurePosixPath(address).parts
    if not can_be_path((parts[0].replace(":", COLON), *parts[1:])):
        raise WrongSettingError("cannot be the address of a run", path=f"{scheme}://{address}")
    return cache_root().joinpath(ELSEWHERE, scheme, parts[0].replace(":", COLON), *parts[1:])


def _laid_out(scheme: str, rest: str) -> Path:
    """The stand-in of an address on the web or in a bucket."""
    address, secrets = without_secrets(scheme, rest), ("", "")
    if scheme in WEB and not is_web(rest):
        message = "has a host that cannot be read: in a user or a password, write / ? # and @ as"
        raise WrongSettingError(f"{message} %2F %3F %23 and %40", path=f"{scheme}://{address}")
    if scheme not in WEB and PASSWORD.match(rest):
        message = "may not hold a password: its package reads credentials from the environment"
        raise WrongSettingError(message, path=f"{scheme}://{address}")
    if scheme in WEB:
        before, _, query = rest.partition("?")
        secrets = before.partition("/")[0].rpartition("@")[0], query
        found, is_file = WebSource(*secrets).listed(f"{scheme}://{address}")
    else:
        found, is_file = BucketSource(scheme).listed(address)
    path, root = _path_of(scheme, address), cache_root()
    home = path.parent if is_file else path
    place = place_of(root, home)
    folders = {above.as_posix() for name in found for above in PurePosixPath(name).parents}
    objects = {
        name: _dated(entry)
        for name, entry in found.items()
        if can_be_file(name, entry) and name not in folders
    }
    if len(objects) < len(found):
        _warn_of_names(found.keys() - objects.keys(), f"{scheme}://{address}")
    known = read_listing(root, place) if is_file else None  # others may have been given before
    everything = {**(known.objects if known else {}), **objects}
    keep_secrets(root, place, secrets)
    write_listing(root, place, Listing(scheme, everything))
    ledger.begin(root, place)
    lay_out(home, objects)
    if not is_file:
        remove_others(home, objects)
    fetch_headers(home, root, place, objects)
    return path


def _dated(entry: Entry) -> Entry:
    """The entry; if nothing would show that its object changed, it holds for this listing only."""
    is_undated = not entry.version and not entry.digest
    return replace(entry, digest=f"listed at {time.time_ns()}") if is_undated else entry


def _warn_of_names(names: Iterable[str], address: str) -> None:
    odd = sorted(names)
    what = f"{len(odd)} objects of {address} have names or sizes that no file can have"
    message = f"{what}, such as {odd[0]!r}: they are left out"
    warnings.warn(RankscopeWarning(message), stacklevel=4)
