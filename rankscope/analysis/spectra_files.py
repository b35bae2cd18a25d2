"""The store of an analysis: one file of spectra per run and step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.file_states import CHANGED
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure
from rankscope.pipeline.execution import Plan
from rankscope.results.columns import MEASURED, SPECTRA_FOLDER
from rankscope.results.measured import Measured
from rankscope.results.spectra_store import (
    MATRIX,
    Entry,
    read_entries,
    store_path,
    write_entries,
)
from rankscope.spectra.spectrum import Spectrum, no_spectrum

# Reasons that concern a whole file, where they name no tensor.
OF_FILES = (CHANGED, "damaged", "not-on-worker")


class SpectraFiles:
    """Spectra in the results folder, each with its matrix's coordinates."""

    def __init__(self, out: Path) -> None:
        self._folder = out / SPECTRA_FOLDER

    def path(self, plan: Plan[SpectraTask]) -> Path:
        """File of a run and step."""
        return store_path(self._folder, plan.run, plan.step)

    def read(self, path: Path) -> list[Entry]:
        """Spectra of a file; none where it is absent or of another version."""
        return read_entries(path)

    def write(self, path: Path, stored: list[Entry], new: list[Entry]) -> None:
        """Write the spectra of a file; new ones replace those of the same matrix, of all heads.

        Changes over another window stay, since calls that select different steps may alternate.
        """
        replaced = set(map(_identity, new)) if stored else ()
        write_entries(path, [e for e in stored if _identity(e) not in replaced] + new)

    def entries(self, task: SpectraTask, result: list[Measured]) -> list[Entry]:
        """The spectra of a task, one per head where there are heads."""
        return [_entry(task, measured, head=head) for head, measured in enumerate(result)]

    def failed(self, task: SpectraTask, failure: Failure) -> tuple[list[Entry], Skip]:
        """A row without a spectrum; what concerns a whole file is reported once, not per matrix."""
        tensors = task.component.recipe.tensors()
        dtype = tensors[0].dtype if tensors else ""
        nothing = no_spectrum((0, 0), dtype, f"skipped:{failure.reason}")
        name = failure.tensor or ("" if failure.reason in OF_FILES else task.component.name)
        path = failure.path or (tensors[0].paths[0] if tensors else "")
        skip = Skip(path, name, failure.reason, failure.message)
        return [_entry(task, nothing, head=0)], skip

    def fault(self, task: SpectraTask, entry: Entry) -> Skip | None:
        """Why there is no spectrum; None where there is one."""
        status = entry.status
        if status in MEASURED:
            return None
        tensors = task.component.recipe.tensors()
        if status == "nonfinite":
            message = "holds NaN or infinity: no spectrum"
            return Skip(_not_finite(tensors), task.component.name, "nonfinite", message)
        path = tensors[0].paths[0]
        message = "no decomposition passed its checks"
        return Skip(path, task.component.name, status.removeprefix("skipped:"), message)


def _not_finite(tensors: Sequence[Tensor]) -> str:
    """The file that contains NaN or infinity; a change reads several, most of which are sound."""
    paths = list(dict.fromkeys(path for tensor in tensors for path in tensor.paths))
    if len(paths) > 1:
        for tensor in tensors:
            with suppress(RankscopeError, MemoryError):
                if not np.isfinite(tensor.read()).all():
                    return tensor.paths[0]
    return paths[0]


def _identity(entry: Entry) -> tuple[int | str | None, ...]:
    """What identifies an entry; the first of several changes has no cosine with an earlier one."""
    matrix = (entry.place[key] for key in MATRIX if key != "head")
    return *matrix, entry.place.get("since"), not entry.has_cosine


def _entry(task: SpectraTask, found: Spectrum | Measured, *, head: int) -> Entry:
    component = task.component
    place = {
        "layer": component.layer,
        "role": component.role,
        "component": component.kind,
        "head": head if component.heads else None,
        "expert": component.expert,
        "name": component.name,
        "since": component.since,
        "restarts": component.restarts,
        "window": component.window,
    }
    return Entry(task.key, place, found)
