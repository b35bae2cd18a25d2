"""The store of an analysis: one file of spectra per run and step."""

from __future__ import annotations

from pathlib import Path

from rankscope.analysis.plan import SpectraTask
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.file_states import CHANGED
from rankscope.pipeline.engine import Failure
from rankscope.pipeline.execution import Plan
from rankscope.results.columns import SPECTRA_FOLDER
from rankscope.results.spectra_store import (
    MATRIX,
    Entry,
    read_entries,
    store_path,
    write_entries,
)
from rankscope.spectra.spectrum import Spectrum, no_spectrum

MEASURED = ("ok", "zero", "vector", "empty")  # statuses; any other says why there is no spectrum
OF_FILES = (CHANGED, "damaged")  # reasons that concern a whole file, where they name no tensor


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
        """Write the spectra of a file; new ones replace those of the same matrix, of all heads."""
        replaced = set(map(_identity, new))
        write_entries(path, [e for e in stored if _identity(e) not in replaced] + new)

    def entries(self, task: SpectraTask, result: list[Spectrum]) -> list[Entry]:
        """The spectra of a task, one per head where there are heads."""
        return [_entry(task, spectrum, head) for head, spectrum in enumerate(result)]

    def failed(self, task: SpectraTask, failure: Failure) -> tuple[list[Entry], Skip]:
        """A row without a spectrum; what concerns a whole file is reported once, not per matrix."""
        tensors = task.component.recipe.tensors()
        dtype = tensors[0].dtype if tensors else ""
        nothing = no_spectrum((0, 0), dtype, f"skipped:{failure.reason}")
        name = failure.tensor or ("" if failure.reason in OF_FILES else task.component.name)
        skip = Skip(failure.path, name, failure.reason, failure.message)
        return [_entry(task, nothing, 0)], skip

    def fault(self, task: SpectraTask, entry: Entry) -> Skip | None:
        """Why there is no spectrum; None where there is one."""
        status = entry.spectrum.status
        if status in MEASURED:
            return None
        path = task.component.recipe.tensors()[0].paths[0]
        if status == "nonfinite":
            message = "holds NaN or infinity: no spectrum"
            return Skip(path, task.component.name, "nonfinite", message)
        message = "no decomposition passed its checks"
        return Skip(path, task.component.name, status.removeprefix("skipped:"), message)


def _identity(entry: Entry) -> tuple[int | str | None, ...]:
    return tuple(entry.place[key] for key in MATRIX if key != "head")


def _entry(task: SpectraTask, spectrum: Spectrum, head: int) -> Entry:
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
    return Entry(task.key, place, spectrum)
