"""Text sets that models are scored on: files of text, by name."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rankscope.errors import RankscopeError, printable
from rankscope.scoring.text_documents import Document
from rankscope.training.data.document_files import (
    LINES_NAMED_JSON,
    TEXT_FORMATS,
    iter_records,
    reading,
)

FORMATS = (*TEXT_FORMATS, *LINES_NAMED_JSON)
BLIMP, HELD_OUT = "blimp", "held-out"  # what the table calls the tasks that are no text set
_NAMED = re.compile(r"(?P<name>[\w.+-]+)=(?P<place>.+)", re.DOTALL)


@dataclass(frozen=True)
class TextSet:
    """Files of text that are scored together.

    Attributes
    ----------
    name
        What the table calls them.
    paths
        The files, each in one of `FORMATS`.
    """

    name: str
    paths: tuple[Path, ...]

    def digest(self) -> str:
        """Digest of all that the documents depend on: the files' bytes, their names and order.

        It stays when the set moves to another folder as a whole.

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

    def iter_documents(self, max_documents: int | None) -> Iterator[Document]:
        """Yield the documents, those of a file in its order; empty ones are left out.

        Lines of JSON name the source of their document under ``"source"`` and its domain under
        ``"subdomain"``, as Paloma's do. In a set of several files, a document without a source has
        the name of its file for one.

        Parameters
        ----------
        max_documents
            At most so many, from the beginnings of all files alike: where files are sources, the
            first of them alone would not stand for the set. Fewer where the last files have not
            got their share. None for all.

        Raises
        ------
        RankscopeError
            If a file cannot be read, a line of it is no document, or there is no text at all.
        """
        given = 0
        for number, path in enumerate(self.paths, start=1):
            # A file with fewer than its share leaves the rest to those after it.
            share = None if max_documents is None else max_documents * number // len(self.paths)
            most = None if share is None else share - given
            for document in islice(self._iter_file(path), most):
                yield document
                given += 1
        if not given:
            raise RankscopeError("holds no text", path=self.paths[0])

    def _iter_file(self, path: Path) -> Iterator[Document]:
        fallback = _stem(path) if len(self.paths) > 1 else None
        for text, record in iter_records(str(path)):
            source, domain = record.get("source"), record.get("subdomain")
            yield Document(
                text,
                source if isinstance(source, str) and source else fallback,
                domain if isinstance(domain, str) and domain else None,
            )


def text_sets(given: Sequence[str]) -> list[TextSet]:
    """Text sets that values of a command line stand for; no text is read yet.

    Parameters
    ----------
    given
        Each a place or ``NAME=PLACE``, a place being a file in one of `FORMATS`, a folder of such
        files at any depth, or a pattern such as ``paloma/*/val`` that files and folders match.
        Hidden files are left out, and of what a pattern matches all other files too.

        A named set has all files of all values with its name. Without a name every file and folder
        is a set of its own, called like the folder, or the file without its format.

    Returns
    -------
    In the order in which their names come first.

    Raises
    ------
    RankscopeError
        If a value stands for no text, two sets would have the same name, or one that of another
        task.
    """
    files: dict[str, list[Path]] = {}
    named = set[str]()
    for value in given:
        name, places = _read(value)
        for place, found in places.items():
            own = name or _name_of(place)
            if (
                not own
                or own in (BLIMP, HELD_OUT)
                or (own in files and not (name and own in named))
            ):
                raise RankscopeError(
                    f"cannot be called {own!r}, as another task is: give it NAME=PATH", path=place
                )
            if name:
                named.add(name)
            files.setdefault(own, []).extend(found)
    # A file that several values of one set find is in it once.
    return [TextSet(name, tuple(dict.fromkeys(paths))) for name, paths in files.items()]


def _read(value: str) -> tuple[str | None, dict[Path, list[Path]]]:
    """Name, if the value gives one, and what it finds; a path may hold ``=`` itself."""
    if found := _found(value):
        return None, found
    match = _NAMED.fullmatch(value)
    if match and (found := _found(match["place"])):
        return match["name"], found
    raise RankscopeError(
        f"--text {printable(value)!r} finds nothing: give a file ({', '.join(FORMATS)}), a folder "
        "of them or a pattern in quotes, as PATH or NAME=PATH"
    )


def _found(place: str) -> dict[Path, list[Path]]:
    """Files and folders at a place, and the files of text that each is or holds."""
    path = Path(place)
    with reading(place):
        if place and path.exists():
            if files := _files(path):
                return {path: files}
        else:
            matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207, it may be absolute
            return {Path(match): files for match in matches if (files := _files(Path(match)))}
    wrong = "holds no file of" if path.is_dir() else "is none of"
    raise RankscopeError(f"{wrong} {', '.join(FORMATS)}", path=path)


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
    """Return the name of a file of text without its format."""
    ending = max((one for one in FORMATS if path.name.lower().endswith(one)), key=len)
    return path.name[: -len(ending)]
