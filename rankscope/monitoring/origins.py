"""First copies of matrices, where cumulative updates begin: in the results folder, to last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints.contents import Contents
from rankscope.durable import write_file
from rankscope.monitoring.matrix_groups import Copied, Group, Places, copied
from rankscope.results.columns import ORIGINS_FOLDER
from rankscope.results.run_folders import run_folder


@dataclass
class Origins:
    """The first copy of every group of a run, each in a file.

    Its name says its step and, in a digest, all that is known of the group: a resumed training
    finds the copies of the same matrices, stored and scaled as they were.
    """

    out: Path
    run: str
    _known: dict[tuple[str, ...], Copied] = field(default_factory=dict)

    @property
    def _folder(self) -> Path:
        return run_folder(self.out / ORIGINS_FOLDER, self.run)

    def of(self, group: Group, whole: Contents) -> Copied | None:
        """The first copy of a group; None if there is none."""
        if group.key not in self._known:
            for path in sorted(self._folder.glob(f"*-{_digest(group)}")):
                if path.stat().st_size == group.nbytes:
                    self._known[group.key] = copied(group, whole, _step(path), _places(group, path))
                    break
        return self._known.get(group.key)

    def begin(self, group: Group, whole: Contents, step: int, places: Places) -> None:
        """Keep a copy as the first of its group.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        path = self._folder / f"{step:08d}-{_digest(group)}"
        file, start = places[group.tensors[0].path]
        with Path(file).open("rb") as copy:
            copy.seek(start)
            write_file(path, copy.read(group.nbytes))
        self._known[group.key] = copied(group, whole, step, _places(group, path))

    def drop_from(self, step: int) -> None:
        """Forget copies of this step and later ones."""
        self._known = {key: one for key, one in self._known.items() if one.step < step}
        for path in self._folder.glob("[0-9]*-*"):
            if _step(path) >= step:
                path.unlink(missing_ok=True)


def _places(group: Group, path: Path) -> dict[str, tuple[str, int]]:
    """The tensors of a group one after the other, as they are copied."""
    places, end = {}, 0
    for tensor in group.tensors:
        places[tensor.path] = str(path), end
        end += tensor.nbytes
    return places


def _step(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _digest(group: Group) -> str:
    about = repr(sorted(group.parameters.items()))
    return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()
