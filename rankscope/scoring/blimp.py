"""Minimal pairs as BLiMP stores them: one JSON object a line, one file a paradigm.

A. Warstadt et al., *BLiMP: The Benchmark of Linguistic Minimal Pairs for English*, TACL 8, 2020.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankscope.errors import RankscopeError

SUFFIX = ".jsonl"
# The files know a 13th phenomenon; the paper's table counts its two paradigms under another.
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
        What it is counted under, empty where the file does not say it.
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
    digest
        Of all of this.
    """

    paradigms: tuple[Paradigm, ...]
    pairs: tuple[tuple[str, str], ...]
    digest: str


def read_blimp(path: str | Path, *, pairs_each: int | None = None) -> Blimp:
    """Minimal pairs of BLiMP, or of another set in its form.

    Every line has ``sentence_good`` and ``sentence_bad``. ``UID`` names the paradigm, by default
    the file does. ``linguistics_term`` is the phenomenon, of which there are the paper's 12:
    ``s-selection`` belongs to ``argument_structure``. ``field`` is ``syntax_semantics`` where it is
    written ``syntax/semantics``. Other keys and empty lines are ignored. Pairs of two equal
    sentences are kept; BLiMP has 7 of them.

    Parameters
    ----------
    path
        A folder of ``.jsonl`` files at any depth, a ``.zip`` of such a folder, or one such file.
        What begins with a dot is ignored, and so is ``__MACOSX``.
    pairs_each
        Take the first so many pairs of each paradigm alone, at least 1.

    Raises
    ------
    RankscopeError
        If something cannot be read, a line is not a pair of sentences, two files have the same
        paradigm, a paradigm has two phenomena or fields, or there is no pair at all.
    """
    if pairs_each is not None and pairs_each < 1:
        raise RankscopeError(f"{pairs_each} pairs of each paradigm leave nothing to score")
    found: dict[str, _Gathered] = {}
    for file, content in _iter_files(Path(path)):
        for uid, gathered in _paradigms_of(file, content).items():
            if uid in found:
                raise RankscopeError(
                    f"holds pairs of {uid!r}, and so does {found[uid].file}: give one of the two",
                    path=file,
                )
            found[uid] = gathered
    if not found:
        raise RankscopeError(f"holds no pairs: BLiMP is {SUFFIX} files, 67 of them", path=path)
    return _blimp([(uid, found[uid]) for uid in sorted(found)], pairs_each)


@dataclass
class _Gathered:
    file: Path
    phenomenon: str
    field: str
    pairs: list[tuple[str, str]]


def _blimp(found: list[tuple[str, _Gathered]], pairs_each: int | None) -> Blimp:
    paradigms, pairs = list[Paradigm](), list[tuple[str, str]]()
    digest = hashlib.blake2b(digest_size=16)
    for uid, given in found:
        used = given.pairs[:pairs_each]
        paradigms.append(Paradigm(uid, given.phenomenon, given.field, len(used)))
        pairs += used
        digest.update(json.dumps([uid, given.phenomenon, given.field, used]).encode())
    return Blimp(tuple(paradigms), tuple(pairs), digest.hexdigest())


def _iter_files(path: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield name and content of each file; of a member of an archive, as if that were a folder."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob(f"*{SUFFIX}")):
                if file.is_file() and _is_wanted(file.relative_to(path)):
                    yield file, file.read_bytes()
        elif path.suffix.lower() == ".zip":
            yield from _iter_members(path)
        elif path.suffix.lower() == SUFFIX or not path.exists():
            yield path, path.read_bytes()
        else:
            raise RankscopeError(f"is neither a folder nor a {SUFFIX} or .zip file", path=path)
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
    # Bytes are cut at ends of lines alone; a string would be at separators within a sentence too.
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
    text.encode()  # an escaped half of a surrogate pair is no text
    return text


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON, {error.msg} at column {error.colno}"
    return str(error)
