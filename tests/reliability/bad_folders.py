"""Trouble with folders, numbers of steps and permissions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rankscope.results.vectors import write_vectors
from tests.reliability.bad_configs import with_adapter
from tests.reliability.bad_logs import log_says, state_says
from tests.reliability.spoiled_run import (
    DEVICE,
    FIFO,
    FOLDER,
    NO_FILE,
    OTHERS,
    STEPS,
    Bad,
    Make,
    fine,
    model,
    moved,
    of,
    replaced,
    skipped,
    step_2,
    write_step,
)


def added(run: Path, name: str, step: int = 7) -> None:
    """Add a folder with other weights beside the steps."""
    write_step(run / name, step)
    (run / name / "trainer_state.json").unlink()


def closed(path: Path) -> None:
    """Take all permissions of a file or folder."""
    path.chmod(0)


def made(folder: Path) -> Path:
    """An empty folder."""
    folder.mkdir()
    return folder


def own_results(run: Path) -> None:
    """Put a results folder of rankscope into the run."""
    own_store(run)
    (run / "rankscope-results" / "metrics.parquet").write_bytes(b"PAR1")
    (run / "rankscope-results" / "analysis.json").write_text("{}")


def own_store(run: Path) -> None:
    """The same without tables and record, as a call leaves it that is killed."""
    folder = run / "rankscope-results" / "spectra" / "run"
    for step in STEPS:
        path = folder / f"step-{step:08d}.safetensors"
        write_vectors(path, {"values": np.ones(3)}, {"entries": []}, version="4")


def deep_folders(run: Path, count: int) -> None:
    """Put a folder into the run that holds one that holds one, as often as this."""
    here = os.open(run, os.O_RDONLY)  # the whole path would be too long
    for _ in range(count):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def states_fall(run: Path) -> None:
    """Let the state of every step state another one, which falls while the names rise."""
    for step in STEPS:
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text(
            f'{{"global_step": {10 - step}}}'
        )


FOLDERS = of(
    "folders",
    fine(
        "a step that is still being written",
        lambda r: moved(r, "tmp-checkpoint-2"),
        "written",
        steps=OTHERS,
    ),
    fine("a hidden folder of a step", lambda r: moved(r, ".tmp-checkpoint-2-99"), steps=OTHERS),
    skipped(
        "an empty folder of a step",
        lambda r: (r / "checkpoint-4").mkdir(),
        "checkpoint-4",
        steps=STEPS,
    ),
    skipped("a step without weights", lambda r: model(r).unlink(), "holds no weights"),
    skipped("a FIFO for weights", lambda r: replaced(r, "model.safetensors", FIFO), NO_FILE),
    skipped("a folder for weights", lambda r: replaced(r, "model.safetensors", FOLDER), NO_FILE),
    skipped("a device for weights", lambda r: replaced(r, "model.safetensors", DEVICE), NO_FILE),
    skipped(
        "a FIFO for the config", lambda r: replaced(r, "config.json", FIFO), "not a regular file"
    ),
    skipped("a folder for the config", lambda r: replaced(r, "config.json", FOLDER), "config.json"),
    fine("a FIFO beside the weights", lambda r: FIFO(step_2(r) / "optimizer.pt")),
    fine("a FIFO beside the steps", lambda r: FIFO(r / "step_9.pt")),
    fine("a file with the name of a step", lambda r: (r / "checkpoint-4").write_text("")),
    fine("a manifest that is a FIFO", lambda r: FIFO(step_2(r) / "MANIFEST.json")),
    fine("a FIFO for merges", lambda r: FIFO(r / "merges")),
    fine("our own results below the run", own_results),
    skipped(
        "folders 900 deep",
        lambda r: deep_folders(r, 900),
        "more than 64 folders below",
        reason="over-limit",
        steps=STEPS,
    ),
    fine("folders 60 deep", lambda r: deep_folders(r, 60)),
    fine("our own results, half written", own_store),
)
STEP_NAMES = of(
    "numbers of steps",
    skipped(
        "zeros make two names of one step",
        lambda r: added(r, "checkpoint-02"),
        "checkpoint-02",
        reason="duplicate-step",
        steps=STEPS,
    ),
    fine(
        "the same weights twice", lambda r: added(r, "checkpoint-02", 2), "holds the same weights"
    ),
    fine(
        "two states name one step", lambda r: state_says(r, {"global_step": 1}), "its name counts"
    ),
    fine("a state of another step", lambda r: state_says(r, {"global_step": 2000}), "step 2000"),
    fine("all states of other steps", states_fall, "so do 2 more"),
    fine("a negative step", lambda r: added(r, "checkpoint--7"), "checkpoint--7"),
    fine("a step of 30 digits", lambda r: added(r, f"checkpoint-{'9' * 30}"), "999"),
    fine("a step in floating point", lambda r: added(r, "checkpoint-1e3"), steps=(*STEPS, 1000)),
    fine("a latest link", lambda r: (r / "latest").symlink_to("checkpoint-3")),
)


def denied(name: str, make: Make, *, steps: tuple[int, ...] = OTHERS) -> Bad:
    """A case in which something may not be read."""
    return skipped(name, make, "Permission denied", reason="permission", steps=steps)


CLOSED = of(
    "permissions",
    denied("weights", lambda r: closed(model(r))),
    denied("a config", lambda r: closed(step_2(r) / "config.json")),
    denied("a state", lambda r: closed(step_2(r) / "trainer_state.json"), steps=STEPS),
    denied("the folder of a step", lambda r: closed(step_2(r))),
    denied("a folder that may be listed only", lambda r: step_2(r).chmod(0o444)),
    denied("a folder that may be entered only", lambda r: step_2(r).chmod(0o111)),
    denied("an adapter", lambda r: with_adapter(r, closed)),
    denied("merges", lambda r: closed(made(r / "merges")), steps=STEPS),
    denied("another folder", lambda r: closed(made(r / "notes")), steps=STEPS),
    fine("a log", lambda r: (log_says(r, ""), closed(r / "metrics.jsonl")), "log of this run"),
    skipped("the run itself", closed, "Permission denied", exit_code=4, steps=()),
)
