"""Folders at every moment of their writing, and what an analysis may say of them then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.plan import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.errors import RankscopeError
from rankscope.results.measure import Row
from tests.analysis.series import Inline, weights
from tests.conftest import CONFIG

Files = dict[str, bytes]
INDEX = "model.safetensors.index.json"
SELECTION = Selection.of(components=("weight", "update"))


def checkpoint(step: int, *, shards: int, seed: int) -> Files:
    """The files of a Trainer's checkpoint in the order in which they are written."""
    tensors = weights(np.random.default_rng(seed))
    files = {"config.json": json.dumps(CONFIG).encode()}
    if shards == 1:
        files["model.safetensors"] = save(tensors)
    else:
        names, listing = list(tensors), dict[str, str]()
        for shard in range(shards):
            own = names[shard::shards]
            file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
            files[file] = save({name: tensors[name] for name in own})
            listing |= dict.fromkeys(own, file)
        files[INDEX] = json.dumps({"metadata": {}, "weight_map": listing}).encode()
    state = {"global_step": step, "log_history": [{"step": step, "loss": 1.0}]}
    files["trainer_state.json"] = json.dumps(state).encode()
    return files


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Let a folder hold these files alone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def moments(files: Mapping[str, bytes], order: Sequence[str]) -> Iterator[tuple[str, Files]]:
    """What a folder holds while its files are written one after another, and how to call that."""
    done: Files = {}
    for name in order:
        for part, share in (("nothing", 0.0), ("half", 0.5)):
            yield f"{part} of {name}", {**done, name: files[name][: int(share * len(files[name]))]}
        done[name] = files[name]
        yield f"up to {name}", dict(done)


def vanishing(files: Mapping[str, bytes], order: Sequence[str]) -> Iterator[tuple[str, Files]]:
    """What a folder holds while it is removed."""
    left = dict(files)
    for name in order:
        del left[name]
        yield f"without {', '.join(files.keys() - left.keys())}", dict(left)


def analysis(run: Path, out: Path) -> Analysis | None:
    """What an analysis finds; None if it refuses all of it in words."""
    try:
        found = analyze_runs(survey([run]), SELECTION, out=out, engine=Inline())
    except RankscopeError:
        return None
    assert isinstance(found, Analysis)
    return found


def wrong(found: Analysis, honest: Iterable[Row], live: Path) -> list[str]:
    """What an analysis has of a run that it should not have, or lacks without a word.

    Parameters
    ----------
    honest
        The rows when everything is there.
    live
        The checkpoint that is being written or removed.
    """
    expected = {_place(row): row for row in honest}
    rows = [row for row in found.rows if not row["status"].startswith("skipped:")]
    faults = [f"{_place(row)} differs" for row in rows if expected.get(_place(row)) != row]
    missing = expected.keys() - set(map(_place, rows))
    if missing and not any(Path(skip.path).is_relative_to(live) for skip in found.skips):
        faults.append(f"{len(missing)} matrices are missing without a word")
    at_live = int(live.name.rpartition("-")[2])
    others = [place for place in missing if place[0] != at_live]
    return faults + [f"{place} is missing, and is of another step" for place in others]


def _place(row: Row) -> tuple[object, ...]:
    return row["step"], row["component"], row["name"], row["head"]
