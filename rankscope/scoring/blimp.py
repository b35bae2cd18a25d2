"""Minimal pairs as BLiMP stores them: one JSON object per line, one file per paradigm.

A. Warstadt et al., *BLiMP: The Benchmark of Linguistic Minimal Pairs for English*, TACL 8, 2020.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankscope.errors import RankscopeError, WrongSettingError

SUFFIX = ".jsonl"
# The files have a 13th phenomenon; the paper's table counts its two paradigms under another.
PHENOMENA = {"s-selection": "argument_structure"}
# One of the 67 files writes its field with a slash.
FIELDS = {"syntax/semantics": "syntax_semantics"}


@dataclass(frozen=True)
class Paradigm:
    """Pairs of sentences that differ in the same way.

    Attributes
    ----------
    uid
        Its name.
    phenomenon, field
        What it is counted under; empty where the file does not say.
    count
        Number of pairs, at least 1.
    """

    uid: str
    phenomenon: str
    field: str
    count: int


@dataclass(frozen=True)
class Blimp:
    """Minimal pairs of several paradigms.

    Attributes
    ----------
    paradigms
        Sorted by name.
    pairs
        The acceptable sentence and the other one, paradigm after paradigm.
    """

    paradigms: tuple[Paradigm, ...]
    pairs: tuple[tuple[str, str], ...]


def blimp_digest(path: str | Path) -> str:
    """Digest of the files that `read_blimp` reads: of their bytes, and their names in the folder.

    It stays the same when they are moved together.

    Raises
    ------
    WrongSettingError
        If there is nothing at ``path``, or something else.
    RankscopeError
        If a file cannot be read.
    """
    path = Path(path)
    digest = hashlib.blake2b(digest_size=16)
    with _reading(path):
        files = _files_in(path) if path.is_dir() else [path]
        for file in files:
            content = hashlib.blake2b(file.read_bytes()).hexdigest()
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            digest.update(f"{content} {name}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_blimp(path: str | Path, *, pairs: int | None = None) -> Blimp:
    """Minimal pairs of BLiMP, or of another set in its form.

    Every line has ``sentence_good`` and ``sentence_bad``. ``UID`` names the paradigm, or if it is
    missing, the file's name does. ``linguistics_term`` is the phenomenon, one of the paper's 12:
    ``s-selection`` belongs to ``argument_structure``. ``syntax/semantics`` is read as the ``field``
    ``syntax_semantics``. Other keys and empty lines are ignored. Pairs of two equal sentences are
    kept; BLiMP has 7 of them.

    Parameters
    ----------
    path
        A folder of ``.jsonl`` files at any depth, a ``.zip`` of such a folder, or one such file.
        Names that begin with a dot are ignored, and so is ``__MACOSX``.
    pairs
        Take at most this many pairs of each paradigm, the first ones; None for all.

    Raises
    ------
    WrongSettingError
        If there is nothing at ``path``, or something else.
    RankscopeError
        If something cannot be read, a line is not a pair of sentences, two files have the same
        paradigm, a paradigm has two phenomena or fields, or there is no pair at all.
    """
    found: dict[str, _Gathered] = {}
    for file, content in _iter_files(Path(path)):
        for uid, gathered in _paradigms_of(file, content).items():
            if uid in found:
                raise RankscopeError(
                    f"holds pairs of {uid!r}, as does {found[uid].file}: keep one of the two",
                    path=file,
                )
            found[uid] = gathered
    if not found:
        raise RankscopeError(f"holds no pairs: BLiMP consists of 67 {SUFFIX} files", path=path)
    return _blimp([(uid, found[uid]) for uid in sorted(found)], pairs)


@dataclass
class _Gathered:
    file: Path
    phenomenon: str
    field: str
    pairs: list[tuple[str, str]]


def _blimp(found: list[tuple[str, _Gathered]], most: int | None) -> Blimp:
    paradigms, pairs = list[Paradigm](), list[tuple[str, str]]()
    for uid, gathered in found:
        used = gathered.pairs[:most]
        paradigms.append(Paradigm(uid, gathered.phenomenon, gathered.field, len(used)))
        pairs += used
    return Blimp(tuple(paradigms), tuple(pairs))


def _iter_files(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield path and content of each file, treating an archive as a folder."""
    with _reading(path):
        if path.is_dir():
            for file in _files_in(path):
                yield file, file.read_bytes()
        elif path.suffix.lower() == ".zip":
            yield from _iter_members(path)
        else:
            yield path, path.read_bytes()


def _files_in(folder: Path) -> list[Path]:
    files = sorted(folder.rglob(f"*{SUFFIX}"))
    return [file for file in files if file.is_file() and _is_wanted(file.relative_to(folder))]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Refuse what cannot hold minimal pairs, and report what cannot be read."""
    if not path.exists():
        raise WrongSettingError("does not exist: give a folder, a zip or a .jsonl file", path=path)
    if not path.is_dir() and path.suffix.lower() not in (SUFFIX, ".zip"):
        raise WrongSettingError(f"is not a folder, nor a {SUFFIX} or .zip file", path=path)
    try:
        yield
    except OSError as error:
        raise RankscopeError(f"cannot be read: {error.strerror or error}", path=path) from None


def _iter_members(path: Path) -> Iterator[tuple[Path, bytes]]:
    where = path
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(SUFFIX) and _is_wanted(Path(name)):
                    where = path / name
                    yield where, archive.read(name)
    except OSError:
        raise
    except Exception as error:  # zipfile raises whatever damage leads it to
        raise RankscopeError(f"cannot be unpacked: {error}", path=where) from None


def _is_wanted(name: Path) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


def _paradigms_of(file: Path, content: bytes) -> dict[str, _Gathered]:
    found: dict[str, _Gathered] = {}
    # Bytes are cut at line ends only; a string would be cut at separators within a sentence too.
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            _gather(found, file, json.loads(line.decode("utf-8-sig")))
        except (ValueError, RecursionError) as error:
            raise RankscopeError(
                f"line {number} is not a minimal pair: {_reason(error)}", path=file
            ) from None
    return found


def _gather(found: dict[str, _Gathered], file: Path, row: object) -> None:
    if not isinstance(row, dict):
        raise ValueError("it is not an object")
    uid = _label(row, "UID", file.stem)
    term, area = _label(row, "linguistics_term", ""), _label(row, "field", "")
    labels = PHENOMENA.get(term, term), FIELDS.get(area, area)
    gathered = found.setdefault(uid, _Gathered(file, *labels, []))
    if labels != (gathered.phenomenon, gathered.field):
        raise ValueError(f"{uid!r} has another linguistics_term or field above")
    gathered.pairs.append((_text(row, "sentence_good"), _text(row, "sentence_bad")))


def _label(row: dict[str, object], key: str, default: str) -> str:
    return _text(row, key) if row.get(key) else default


def _text(row: dict[str, object], key: str) -> str:
    if key not in row:
        raise ValueError(f'it has no "{key}"')
    if not isinstance(text := row[key], str):
        raise ValueError(f'"{key}" is not a string')
    if not text.strip():
        raise ValueError(f'"{key}" is empty')
    text.encode()  # raises for an escaped half of a surrogate pair
    return text


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON, {error.msg} at column {error.colno}"
    return str(error)
