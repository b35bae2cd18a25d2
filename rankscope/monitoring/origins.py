"""First copies of matrices, where cumulative updates begin: in the results folder, to last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints.contents import Contents
from rankscope.durable import safe_name
from rankscope.monitoring.matrix_groups import Copied, Group, copied
from rankscope.results.columns import ORIGINS_FOLDER

Kept = tuple[tuple[str, str], ...]  # copies to keep: from, to


@dataclass
class Origins:
    """The first copy of every group of a run.

    A file is named for its step, for all that is known of its group, and for its tensor: a resumed
    training finds those of the same matrices, stored and scaled as they were.
    """

    out: Path
    run: str
    _known: dict[tuple[str, ...], Copied] = field(default_factory=dict)

    @property
    def _folder(self) -> Path:
        return self.out / ORIGINS_FOLDER / safe_name(self.run)

    def of(self, group: Group, whole: Contents) -> Copied | None:
        """The first copy of a group; None if there is none."""
        if group.key not in self._known:
            found = self._found(group)
            if found is None:
                return None
            step, files = found
            self._known[group.key] = copied(group, whole, step, files)
        return self._known[group.key]

    def begin(self, group: Group, whole: Contents, step: int, files: Mapping[str, str]) -> Kept:
        """Make this the first copy of a group; returns what is to be kept, and where."""
        names = {path: self._name(group, step, number) for number, path in _numbered(group)}
        kept = {path: str(self._folder / name) for path, name in names.items() if path in files}
        self._known[group.key] = copied(group, whole, step, kept)
        return tuple((files[path], there) for path, there in kept.items())

    def drop_from(self, step: int) -> None:
        """Forget copies of this step and later ones."""
        self._known = {key: one for key, one in self._known.items() if one.step < step}
        for path in self._folder.glob("*-*-*"):
            if path.name.partition("-")[0].isdecimal() and int(path.name.partition("-")[0]) >= step:
                path.unlink(missing_ok=True)

    def _found(self, group: Group) -> tuple[int, dict[str, str]] | None:
        sizes = {tensor.path: tensor.nbytes for tensor in group.tensors}
        for first in sorted(self._folder.glob(f"*-{_digest(group)}-0")):
            step = int(first.name.partition("-")[0])
            there = {
                path: self._folder / self._name(group, step, n) for n, path in _numbered(group)
            }
            if all(f.is_file() and f.stat().st_size == sizes[p] for p, f in there.items()):
                return step, {path: str(file) for path, file in there.items()}
        return None

    @staticmethod
    def _name(group: Group, step: int, number: int) -> str:
        return f"{step:08d}-{_digest(group)}-{number}"


def _numbered(group: Group) -> list[tuple[int, str]]:
    return list(enumerate(tensor.path for tensor in group.tensors))


def _digest(group: Group) -> str:
    about = repr(sorted(group.parameters.items()))
    return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()
