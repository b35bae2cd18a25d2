"""TorchScript archives: a module and its tensors, read without its code.

The archive is a zip like those of ``torch.save``, with an object of classes that the archive itself
defines. Attributes are stored under their names, so the parameters of a module, its buffers and its
parts are there by name; the source code beside them says which are buffers. Constants, such as the
weights of a frozen module, have no names.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rankscope.checkpoints.checksums import Checksum
from rankscope.checkpoints.files.inert_names import Opaque
from rankscope.checkpoints.files.pickles import read_object
from rankscope.checkpoints.files.torch_tensors import (
    NAMES,
    ClosedTensor,
    Storage,
    storage_identity,
)
from rankscope.checkpoints.files.zip_file import FilePart, entry_bytes, stored_start
from rankscope.checkpoints.limits import MAX_BYTES, MAX_CODE
from rankscope.checkpoints.tensors import DTYPES, StoredTensor
from rankscope.errors import RankscopeError, printable

CONSTANTS, OWN = "constants.pkl", "__torch__."
CLASS = re.compile(r"^class (\w+)\(.*\):$", re.MULTILINE)
BUFFERS = re.compile(r"__buffers__ = \[([^\[\]]*)\]")


def read_script(
    path: Path, part: FilePart, entries: Mapping[str, zipfile.ZipInfo], root: str
) -> tuple[Any, tuple[str, ...]]:
    """Read the module, as a tree of modules with parameters and buffers, and its constants.

    Raises
    ------
    RankscopeError
        If the archive is damaged.
    """
    objects = []
    for name, folder in (("data.pkl", "data"), (CONSTANTS, "constants")):
        storage = storages_of(path, part, entries, f"{root}/{folder}")
        program = entry_bytes(part, entries[f"{root}/{name}"], path, limit=MAX_BYTES)
        file = io.BytesIO(program)
        objects.append(
            read_object(file, NAMES, path=path, persistent=storage, tensors=len(entries))
        )
    (module, closed), (constants, _) = objects
    if not isinstance(module, Opaque):
        message = "is a TorchScript archive without a module"
        raise RankscopeError(message, path=path, reason="no-state-dict")
    _Buffers(path, part, entries, root).separate(module)
    tensors = [one for one in constants if isinstance(one, StoredTensor | Opaque)]
    module.appended.extend(tensors)
    # Its classes are in the archive; what torch itself adds is of no use without them.
    return module, tuple(name for name in closed if not name.startswith((OWN, "torch.")))


def storages_of(
    path: Path, part: FilePart, entries: Mapping[str, zipfile.ZipInfo], folder: str
) -> Callable[[Any], Storage]:
    """Finds the storages that a pickle refers to in a folder of the archive."""
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        kind, key, count = storage_identity(identity)
        if key not in storages:
            nbytes = count * DTYPES[kind.dtype][0]
            entry = entries.get(f"{folder}/{key}")
            if entry is None or entry.file_size < nbytes:
                message = f"lacks data of its storage {printable(key)}"
                raise RankscopeError(message, path=path, reason="record-missing")
            start = part.start + stored_start(part, entry, path)
            checksum = Checksum.stated(start, entry.file_size, entry.CRC)
            storages[key] = Storage(str(path), kind.dtype, start, nbytes, checksum)
        return storages[key]

    return storage


class _Buffers:
    """Separates buffers of modules from parameters, by the source code in the archive."""

    def __init__(
        self, path: Path, part: FilePart, entries: Mapping[str, zipfile.ZipInfo], root: str
    ) -> None:
        self._path, self._part, self._entries, self._root = path, part, entries, root
        self._texts: dict[str, dict[str, frozenset[str]]] = {}
        self._letters_left = MAX_CODE

    def separate(self, module: Opaque) -> None:
        """Give every module in the tree its parameters, buffers and parts, as torch's have."""
        waiting, seen = [module], set[int]()
        while waiting:
            one = waiting.pop()
            if id(one) in seen or not isinstance(one.state, dict):
                continue
            seen.add(id(one))
            buffers = self._of(one.name)
            held = {str(name): value for name, value in one.state.items()}
            parts = {name: value for name, value in held.items() if _is_part(value)}
            waiting += parts.values()
            one.state = {
                "_buffers": {name: value for name, value in held.items() if name in buffers},
                "_modules": parts,
                "_parameters": {
                    n: value for n, value in held.items() if n not in buffers and n not in parts
                },
            }

    def _of(self, name: str) -> frozenset[str]:
        """Buffers of a class."""
        module, _, kind = name.rpartition(".")
        file = f"{self._root}/code/{module.replace('.', '/')}.py"
        if file not in self._texts:
            self._texts[file] = _buffers_in(self._text(file))
        return self._texts[file].get(kind, frozenset())

    def _text(self, file: str) -> str:
        info = self._entries.get(file)
        if info is None or info.file_size > self._letters_left:
            return ""
        self._letters_left -= info.file_size
        try:
            return self._archive.read(file).decode("utf-8", errors="replace")
        except Exception:  # zipfile raises whatever damage leads it to
            message = f"its entry {printable(file)} is damaged"
            raise RankscopeError(message, path=self._path, reason="damaged") from None

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BufferedReader(self._part.first(self._part.size)))


def _is_part(value: Any) -> bool:
    """Whether an attribute is a module: an object of a class in the archive."""
    return isinstance(value, Opaque) and not isinstance(value, ClosedTensor)


def _buffers_in(text: str) -> dict[str, frozenset[str]]:
    """Buffers of every class that a source file defines."""
    starts = [*CLASS.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    buffers = {}
    for match, end in zip(starts, ends, strict=True):
        listed = BUFFERS.search(text, match.end(), end)
        names = [] if listed is None else re.findall(r"\"([^\"]+)\"", listed[1])
        buffers[match[1]] = frozenset(names)
    return buffers
