"""Limits on what a file may make of this process: every one has its name here.

A few bytes can claim terabytes, or repeat a large object very often. What is claimed is therefore
compared with a limit *before* it is allocated or begun. Each limit is far above what the writers of
checkpoints produce. The reason codes of what is refused:

``too-large``
    It would take more memory than there is, or has more bytes than such a file needs.
``over-limit``
    It has more objects, entries or letters than a limit allows, or takes too many steps to read.
``expands``
    It has far more elements than the file stores: an expanded view, or highly compressed data.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.platforms import memory_of_machine

# Bytes of what is read as a whole; the data of tensors is not part of it.
MAX_HEADER = 100_000_000  # of a safetensors file; the format's own limit
MAX_ARRAY_HEADER = 10_000  # of a numpy array; for longer ones numpy asks whether they are trusted
MAX_JSON, MAX_YAML = 64 * 2**20, 2**20
MAX_BYTES = 256 * 2**20  # of one pickle
MAX_CODE = 2**24  # of all files of TorchScript in an archive

# Objects, each of which takes 50 to 200 bytes of memory and about a microsecond.
MAX_VALUES = 2**22  # in JSON or in the header of a safetensors file
MAX_YAML_VALUES = 20_000  # or lines of YAML, whose parser takes 50 microseconds for each
MAX_OPERATIONS = 2**20  # of a pickle, beyond those that its tensors take:
PER_TENSOR = 100  # operations for each entry of the archive; torch takes about 40 for a tensor,
BYTES_PER_TENSOR = 4096  # and where no directory counts them, for each of as many as would fit
MAX_MARKS = 10_000  # open at once in a pickle, which is how deeply its containers are nested
MAX_COPIED = 2**22  # entries that the calls of a pickle may copy; 64 letters count as one
DEAR = 4  # what an argument or an attribute counts, which is looked at or renamed one by one
MAX_DIRECTORY = 2**24  # bytes of the directory of a zip archive, about 100 for an entry
MAX_COMPARED = 2**19  # tensors that may be scales of a packed one beside them
MAX_DEPTH = 64  # of containers in containers, and of folders in folders

# Names and keys.
MAX_NAME = 1000  # letters in the name of a tensor
MAX_KEY = 1000  # letters, bytes and parts of a key that is not plain text
MAX_KEY_BITS = 64  # larger numbers can be chosen so that all have one hash

# Patterns for names in the configs of adapters.
MAX_PATTERN = 1000  # letters, and as many states of the automaton that it becomes
MAX_STEPS = 2**21  # of matching names with all patterns of a config

# Bytes of tensors beyond those that a file stores.
FREE_BYTES = 2**22  # of every file, and for each byte of the file:
VIEWS = 4  # in views of its storages; tied weights and slices have about two
COMPRESSION = 64  # in compressed arrays; deflate makes up to 1032 of a zero
MAX_SIZE = 2**60  # of an axis, and of offsets; up to here no two numbers have one hash

MEMORY = "RANKSCOPE_MEMORY"  # environment variable: bytes, or a number with kB, MB, GiB and so on
SHARE = 0.9  # of the memory of this machine, where that variable is not set
UNITS = "KMGT"
BEGINNINGS = (b",", b"[", b"{")  # before every value of JSON but the first of its container
YAML_BEGINNINGS = (
    *(*BEGINNINGS, b"- ", b"-\t", b"? ", b"?\t"),
    *(b"\n", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9"),  # all that end a line
)
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_budget() -> int:
    """Bytes that one matrix may take with all that its spectrum needs.

    The environment variable ``RANKSCOPE_MEMORY`` states it (``200GB``). By default it is nine
    tenths of the memory of this machine, or of the container.

    Raises
    ------
    WrongSettingError
        If the variable does not hold a size.
    """
    return _budget(os.environ.get(MEMORY, ""))


@lru_cache(maxsize=8)
def _budget(stated: str) -> int:
    return size_in(stated, MEMORY) if stated.strip() else int(SHARE * _memory())


def size_in(stated: str, variable: str) -> int:
    """The bytes that an environment variable states, such as ``64GB`` or ``2GiB``.

    Raises
    ------
    WrongSettingError
        If that is not a size.
    """
    match = re.fullmatch(r"\s*([0-9.]{1,20})\s*([KMGT]?)(I?)B?\s*", stated.upper())
    try:
        if match is None:
            raise ValueError("is not a size")
        step = 1024 if match[3] else 1000
        return int(float(match[1]) * step ** (UNITS.find(match[2]) + 1 if match[2] else 0))
    except ValueError:
        raise WrongSettingError(
            f"the environment variable {variable} is {stated[:40]!r}: give a size such as 64GB"
        ) from None


def _memory() -> int:
    """Bytes of memory that this process may use at most."""
    total = memory_of_machine()
    for path in map(Path, CGROUPS):
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return total


def check_memory(
    needed: int, what: str, *, path: str | Path | None = None, tensor: str | None = None
) -> None:
    """Refuse what would take more memory than there is, before it is allocated.

    Parameters
    ----------
    needed
        Bytes, at the least.
    what
        The subject of the message: ``a matrix of 50000 × 50000``.

    Raises
    ------
    RankscopeError
        With the reason ``too-large``.
    """
    budget = memory_budget()
    if needed > budget:
        raise RankscopeError(
            f"{what} takes at least {size_text(needed)} of memory, more than the "
            f"{size_text(budget)} that may be used: set {MEMORY} where there is more",
            path=path,
            tensor=tensor,
            reason="too-large",
        )


def size_text(count: int) -> str:
    """A number of bytes with three digits and its unit; the largest are cut."""
    if count >= 10**21:
        return "over 10^21 bytes"
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return (
                f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count // size} {unit}"
            )
    return f"{count} bytes"


def check_values(raw: bytes, what: str, *, path: str | Path, is_yaml: bool = False) -> None:
    """Refuse JSON or YAML with so many values that it would take gigabytes, or long, to parse.

    Every value but the first of its container follows a comma, or in YAML a dash, a question mark
    or the end of a line, and so does every container or its bracket; those in texts count too.

    Raises
    ------
    RankscopeError
        With the reason ``over-limit``.
    """
    most = MAX_YAML_VALUES if is_yaml else MAX_VALUES
    count = sum(map(raw.count, YAML_BEGINNINGS if is_yaml else BEGINNINGS))
    if count > most:
        raise RankscopeError(
            f"{what} has about {count} values, more than {most}", path=path, reason="over-limit"
        )


def are_counts(numbers: Any) -> bool:
    """Whether these are the sizes, strides or offsets of an array, as a file may state them."""
    if not isinstance(numbers, list | tuple):
        return False
    for number in numbers:  # noqa: SIM110  # a file may have many, and `all` takes longer
        if type(number) is not int or not 0 <= number <= MAX_SIZE:
            return False
    return True


def short_name(name: str) -> str:
    """The name, or beginning and end of a longer one than any model has, with a digest of it."""
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{name[: MAX_NAME // 4]}…{digest}…{name[-MAX_NAME // 4 :]}"


def over_limit(message: str) -> RankscopeError:
    """The error for a count above its limit, whose path the caller adds."""
    return RankscopeError(message, reason="over-limit")
