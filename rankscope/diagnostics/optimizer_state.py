"""Optimizer state that outlives a restart: Adam's step counters of the adapters.

The moments of a new adapter show nothing a few steps later, but its step counter does: Adam
corrects its moments by it. Both rankscope's own state and the ``optimizer.pt`` of other trainers
hold one for every parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.weights_file import open_entries
from rankscope.checkpoints.steps import step_in_name
from rankscope.diagnostics.evidence import Evidence, Moment
from rankscope.diagnostics.finding import Finding, Kind, Unchecked
from rankscope.errors import RankscopeError

FACTORS = (".lora_A", ".lora_B")
OPTIMIZERS = ("optimizer.pt", "optimizer.bin")

NOT_RESET = Kind(
    "optimizer-not-reset",
    "warning",
    "Adam's state for the adapters survived a restart: old moments push the new adapters in old "
    "directions, and where only the moments were pruned, the first updates are several times too "
    "large.",
    "At a restart, delete the state of A and B, both moments and step counter, and keep that of "
    "all other parameters.",
)


def check_optimizer(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the step counters of the adapters with the age of their cycle."""
    yield from _own_states(evidence)
    yield from _states_beside_checkpoints(evidence)


def _own_states(evidence: Evidence) -> Iterator[Finding]:
    """Check a run of rankscope's trainer, which keeps the newest states in the folder ``state``."""
    found: dict[int, tuple[int, int]] = {}
    for folder in sorted((evidence.run.path / "state").glob("step-*")):
        step, counters = step_in_name(folder.name), _counters(folder)
        begun = [merge for merge in evidence.merges.steps if step is not None and merge < step]
        if step is None or not begun:
            continue
        ages = [age for name, age in counters.items() if name.endswith(FACTORS)]
        if ages and max(ages) > step - begun[-1]:
            found[step] = max(ages), step - begun[-1]
    if found:
        step, (age, cycle) = max(found.items())
        text = (
            f"at step {step} the adapters are {cycle} updates old but Adam's counter says {age}, "
            f"in {len(found)} of the states that the run keeps"
        )
        yield NOT_RESET.at(evidence.place.of(found), text, {"counter": age, "age": cycle})


def _counters(folder: Path) -> Mapping[str, int]:
    try:
        held = read_json(folder / "state.json").get("adam_steps")
    except RankscopeError:
        return {}
    known = held if isinstance(held, dict) else {}
    return {str(name): age for name, age in known.items() if type(age) is int}


def _states_beside_checkpoints(evidence: Evidence) -> Iterator[Finding]:
    """Check trainers that count restarts: no parameter has a counter younger than the training."""
    steps, ages = [], list[int]()
    for moment in evidence.moments:
        counted = moment.contents.restarts or 0
        if counted and moment.contents.layout != "pico":
            known = _ages(moment)
            if known and min(known) == max(known):
                steps.append(moment.step)
                ages.append(known[0])
    if steps:
        text = (
            f"Adam's counter is {ages[-1]} for every parameter at {evidence.run.unit} {steps[-1]}, "
            "those of the adapters included, although they restarted"
        )
        yield NOT_RESET.at(evidence.place.of(steps), text, {"counter": ages[-1]})


def _ages(moment: Moment) -> list[int]:
    """Step counters in the optimizer's file beside a checkpoint.

    None where there is no such file, or where a parameter has no state: it was just deleted.
    """
    path = next((p for n in OPTIMIZERS if (p := moment.checkpoint.path / n).is_file()), None)
    if path is None:
        return []
    try:
        entries = open_entries(path, moment.checkpoint.options)
        nested = entries.get("optimizer")
        held = nested if isinstance(nested, Mapping) and "state" in nested else entries
        states, groups = held.get("state"), held.get("param_groups")
        if not isinstance(states, Mapping) or not isinstance(groups, list | tuple):
            return []
        count = sum(len(group.get("params", ())) for group in groups if isinstance(group, Mapping))
        found = [_number(one.get("step")) for one in states.values() if isinstance(one, Mapping)]
    except RankscopeError:
        return []
    ages = [age for age in found if age is not None]
    return ages if len(ages) == count else []


def _number(value: Any) -> int | None:
    if isinstance(value, int | float):
        return int(value)
    if hasattr(value, "numbers") and np.prod(value.shape) == 1:
        return int(value.numbers().reshape(-1)[0])
    return None
