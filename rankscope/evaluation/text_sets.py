"""Text sets that models are scored on: files of text, by name."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rankscope.checkpoints.file_states import FileStates, State, changed, state_of, states_of_files
from rankscope.errors import RankscopeError, WrongSettingError, printable
from rankscope.scoring.text_documents import TextDocument
from rankscope.training.data.document_files import (
    LINES_NAMED_JSON,
    TEXT_FORMATS,
    iter_records,
    reading,
)

FORMATS = (*TEXT_FORMATS, *LINES_NAMED_JSON)
# Names of the tasks that are not text sets.
BLIMP, HELD_OUT, AGREEMENT = "blimp", "held-out", "agreement"
_NAMED = re.compile(r"(?P<name>[\w.+-]+)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class TextSet:
    """Files of text that are scored together.

    Attributes
    ----------
    name
        Name of the task in the table.
    paths
        The files, each in one of `FORMATS`.
    states
        Their states when they were found, before their digest: documents of another state are not
        read.
    """

    name: str
    paths: tuple[Path, ...]
    states: FileStates = ()

    def digest(self) -> str:
        """Digest of all that the documents depend on: the files' bytes, their names and order.

        It stays the same when the set moves to another folder as a whole.

        Raises
        ------
        RankscopeError
            If a file cannot be read.
        """
        common = os.path.commonpath([path.absolute().parent for path in self.paths])
        whole = hashlib.blake2b(digest_size=16)
        for path in self.paths:
            with reading(path), path.open("rb") as file:
                content = hashlib.file_digest(file, "blake2b").hexdigest()
            name = path.absolute().relative_to(common).as_posix()
            whole.update(f"{content} {name}\0".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def iter_documents(self, max_documents: int | None) -> Iterator[TextDocument]:
        """Yield the documents of each file in its order; empty ones are left out.

        Lines of JSON name the source of their document under ``"source"`` and its domain under
        ``"subdomain"``, as in Paloma. In a set of several files, the source of a document that
        names none is its file.

        Parameters
        ----------
        max_documents
            At most this many, equally from the beginning of each file: where files are sources, the
            first alone would not represent the set. Fewer if the last files have less than their
            share. None for all.

        Raises
        ------
        RankscopeError
            If a file cannot be read, a line is not a document, or there is no text at all; with the
            reason ``changed-while-reading``, if a file was written to since it was found.
        """
        known = dict(self.states)
        given = 0
        for number, path in enumerate(self.paths, start=1):
            # A file with fewer than its share leaves the rest to those after it.
            share = None if max_documents is None else max_documents * number // len(self.paths)
            most = None if share is None else share - given
            for document in islice(self._iter_file(path), most):
                _require(known.get(str(path)), path)  # not everybody reads to the end
                yield document
                given += 1
            _require(known.get(str(path)), path)
        if not given:
            raise RankscopeError("holds no text", path=self.paths[0])

    def _iter_file(self, path: Path) -> Iterator[TextDocument]:
        fallback = _stem(path) if len(self.paths) > 1 else None
        for text, record in iter_records(str(path)):
            source, domain = record.get("source"), record.get("subdomain")
            yield TextDocument(
                text,
                source if isinstance(source, str) and source else fallback,
                domain if isinstance(domain, str) and domain else None,
            )


def _require(known: State | None, path: Path) -> None:
    """Raise if a file is not in the state that is known of it."""
    if known is not None and state_of(path) != known:
        raise changed(path)


def text_sets(given: Iterable[str]) -> list[TextSet]:
    """Text sets by the values that name them; no text is read yet.

    Parameters
    ----------
    given
        Each is a path or ``NAME=PATH``. A path is a file in one of `FORMATS`, a folder of such
        files at any depth, or a pattern such as ``paloma/*/val`` that matches files and folders.
        Hidden files are left out, and so are files in other formats that a pattern matches.

        A named set has all files of all values with its name. Without a name, every file and folder
        is a separate set, named after the folder, or the file without its extension.

    Returns
    -------
    In order of first appearance of their names.

    Raises
    ------
    WrongSettingError
        If a value matches no text, or a set would have the name of another set or task.
    """
    files: dict[str, list[Path]] = {}
    named = set[str]()
    for value in given:
        given_name, matches = _read(value)
        for path, matched in matches.items():
            name = given_name or _name_of(path)
            is_more = given_name is not None and name in named
            if not name or name in (BLIMP, HELD_OUT, AGREEMENT) or (name in files and not is_more):
                raise WrongSettingError(
                    f"cannot be called {name!r}, the name of another task: give it as NAME=PATH",
                    path=path,
                )
            if given_name:
                named.add(name)
            files.setdefault(name, []).extend(matched)
    # A file that several values of one set match is in the set once.
    return [
        TextSet(name, paths, states_of_files(paths))
        for name, paths in ((name, tuple(dict.fromkeys(some))) for name, some in files.items())
    ]


def named_path(value: str, *, otherwise: str) -> tuple[str, Path]:
    """Name and path of ``NAME=PATH``; of a path alone, which may contain ``=``, another name."""
    named = None if Path(value).exists() else _NAMED.fullmatch(value)
    return (otherwise, Path(value)) if named is None else (named["name"], Path(named["path"]))


def _read(value: str) -> tuple[str | None, dict[Path, list[Path]]]:
    """Name, if the value gives one, and what the path matches, which may itself contain ``=``."""
    if matches := _matches(value):
        return None, matches
    named = _NAMED.fullmatch(value)
    if named and (matches := _matches(named["path"])):
        return named["name"], matches
    raise WrongSettingError(
        f"`text` {printable(value)!r} matches nothing: give a file ({', '.join(FORMATS)}), a "
        "folder of them or a pattern, as PATH or NAME=PATH"
    )


def _matches(given: str) -> dict[Path, list[Path]]:
    """Files and folders that a path or pattern matches, with the files of text in each."""
    path = Path(given)
    with reading(given):
        if given and path.exists():
            if files := _files(path):
                return {path: files}
        else:
            matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207, it may be absolute
            return {Path(match): files for match in matches if (files := _files(Path(match)))}
    wrong = "holds no file in one of the formats" if path.is_dir() else "is in none of the formats"
    raise WrongSettingError(f"{wrong} {', '.join(FORMATS)}", path=path)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.name.lower().endswith(FORMATS) else []
    return [
        file
        for file in sorted(path.rglob("*"))
        if file.name.lower().endswith(FORMATS)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]


def _name_of(path: Path) -> str:
    if path.is_file():
        return _stem(path)
    return path.name if path.name.strip(".") else path.resolve().name


def _stem(path: Path) -> str:
    """Name of a file of text without its format."""
    ending = max((form for form in FORMATS if path.name.lower().endswith(form)), key=len)
    return path.name[: -len(ending)]
