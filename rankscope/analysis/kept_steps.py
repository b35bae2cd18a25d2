"""Rows of a step that was just carried out, kept for the table and for the next call."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.file_states import state_of
from rankscope.pipeline.execution import Executed
from rankscope.results.columns import ROWS_FOLDER, SPECTRA_FOLDER
from rankscope.results.spectra_store import Entry, store_path
from rankscope.results.step_rows import KeptRows, Spool, Spooled, StepRows, write_step_rows


def kept_rows(executed: Executed[SpectraTask, Entry], *, spool: Spool | None) -> KeptRows:
    """The rows of a step; written into the results folder if they are valid until a file changes.

    Parameters
    ----------
    spool
        Where they wait until the table is written; None if there is no results folder.
    """
    # Imported here, not at the top, so that it loads while the workers compute.
    import rankscope.analysis.results_folder  # noqa: F401

    plan = executed.plan
    if isinstance(plan.about, StepRows | Spooled):
        return plan.about
    rows = partial(StepRows.of_entries, plan.run, plan.step, executed.entries)
    if spool is None:
        return rows({})
    if plan.about is None or executed.has_failed:
        return spool.add(rows({}))
    spectra = state_of(store_path(spool.folder / SPECTRA_FOLDER, plan.run, plan.step))
    said = {
        "skips": [asdict(skip) for skip in executed.skips],
        "notes": [asdict(note) for note in plan.notes],
        "spectra": spectra,
    }
    made = rows(plan.about | said)
    if plan.about["trail"]:
        write_step_rows(store_path(spool.folder / ROWS_FOLDER, plan.run, plan.step), made)
    return spool.add(made)
