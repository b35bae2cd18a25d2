"""Whether a checkpoint continues the one before it, or another model begins there.

The difference of two models looks like an update and is not one. So checkpoints are one training
only while names, shapes, configurations and logs agree. All of that is in headers and in small JSON
files beside the weights.

The cost of an error: a false break loses the updates of one interval, and a line names both steps.
A break that goes unnoticed, as between two trainings of one model without logs, gives a false
update.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Contents, Parameter, Skip
from rankscope.checkpoints.families.heads import NAMES
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.links import check_link, links_within
from rankscope.checkpoints.regions import Part
from rankscope.errors import RankscopeError, printable

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
SIZES = ("model_type", *NAMES["width"], *NAMES["heads"], *LAYERS)
Parameters = Mapping[str, Parameter]
History = Mapping[tuple[int, str], frozenset[str]]  # step and name of a loss → what was logged


@dataclass(frozen=True)
class Trace:
    """What the files beside a checkpoint say about its training: the config, and the log so far."""

    config: Mapping[str, Any]
    history: History


def trace_of(checkpoint: Path, *, within: Path | None = None) -> Trace:
    """Read the files beside the weights; one that is missing or damaged says nothing.

    Neither does one that a link leads to from outside of ``within``.
    """
    with links_within(checkpoint, within):
        config, state = (_read(checkpoint / name) for name in ("config.json", "trainer_state.json"))
    nested = config.get("text_config")
    stated = config | nested if isinstance(nested, dict) else config
    history: dict[tuple[int, str], frozenset[str]] = {}
    records = state.get("log_history")
    for record in records if isinstance(records, list) else ():
        step = record.get("step") if isinstance(record, dict) else None
        if type(step) is int:
            losses = {key: value for key, value in record.items() if str(key).endswith("loss")}
            for key, value in losses.items():
                entry = step, str(key)
                history[entry] = history.get(entry, frozenset()) | {repr(value)}
    return Trace({key: stated[key] for key in SIZES if key in stated}, history)


def _read(path: Path) -> dict[str, Any]:
    try:
        check_link(path)
        return read_json(path)
    except RankscopeError:
        return {}


def difference(earlier: Contents, later: Contents) -> str:
    """What shows that two checkpoints are different models, in words; empty if nothing does.

    At least half of the matrices must have the same names, and at least a third of those the same
    shapes. A resized vocabulary, a new head, or layers that are missing in one file do not make
    another model. Adapters alone are compared only with the weights that they belong to. A
    different family counts if it reads the same tensors in another way, such as transposed.
    """
    before, now = earlier.parameters, later.parameters
    common = [name for name in now if name in before]
    alone = stand_alone(earlier) or stand_alone(later)
    whole = (min if alone else max)(len(before), len(now))
    if 2 * len(common) < whole:
        examples = ", ".join(_example(one, other) for one, other in ((before, now), (now, before)))
        return f"other names, {len(common)} of {whole} matrices in common ({examples})"
    changed = [name for name in common if now[name].shape != before[name].shape]
    if 3 * len(changed) > 2 * len(common):
        name = changed[0]
        was, are = list(before[name].shape), list(now[name].shape)
        return f"other shapes of {len(changed)} of {len(common)} matrices ({name}: {was}, {are})"
    if not alone and not all(_read_alike(before[name], now[name]) for name in common):
        return f"another model: its family was {earlier.family} and is now {later.family}"
    if earlier.heads and later.heads and earlier.heads != later.heads:
        both = (earlier.heads, later.heads)
        counts = (f"{one.count} of size {one.size}, {one.kv_count} with keys" for one in both)
        return "another model: its heads were {} and are now {}".format(*counts)
    return ""


def difference_of_traces(earlier: Trace, later: Trace) -> str:
    """What shows that two checkpoints are of different trainings; empty if nothing does.

    The log of a training that continues has the earlier entries. If both logs have the same loss at
    the same step with different values, they are of two trainings.
    """
    for key in [key for key in earlier.config if key in later.config]:
        was, now = earlier.config[key], later.config[key]
        if was != now and str(was) != str(now):  # NaN is the same in both
            then, since = (printable(str(value), limit=40) for value in (was, now))
            return f"another model: its config.json stated {key} {then} and now states {since}"
    for entry, values in earlier.history.items():
        others = later.history.get(entry)
        if others is not None and not others & values:
            step, loss = entry
            return (
                f"the history of another run: its trainer_state.json states {loss} "
                f"{min(others)} at step {step}, and that of the checkpoint before {min(values)}"
            )
    return ""


def _read_alike(one: Parameter, other: Parameter) -> bool:
    """Whether the families of two checkpoints read a matrix alike: role, orientation, cut."""
    both = one.tensor, other.tensor
    return one.role == other.role and len({isinstance(tensor, Part) for tensor in both}) == 1


def _missing(
    from_these: Parameters, of_those: Parameters, has: Callable[[Parameter], bool]
) -> list[str]:
    return [name for name, one in of_those.items() if name not in from_these and has(one)]


def _example(names: Collection[str], others: Collection[str]) -> str:
    name = next((name for name in names if name not in others), "")
    return name if len(name) <= 80 else f"{name[:79]}…"


def gaps(
    earlier: Contents,
    later: Contents,
    *,
    held: Collection[str],
    path: str,
    steps: tuple[str, str],
    has: Callable[[Parameter], bool],
) -> Iterator[Skip]:
    """A skip for every matrix that only one of two consecutive checkpoints has.

    There is none if a skip of the later checkpoint names the matrix already. If only one of the two
    holds adapters alone, a single skip says so.

    Parameters
    ----------
    held
        Matrices of all earlier checkpoints: what comes back is not new.
    path
        That of the later checkpoint.
    steps
        The steps of the two, in words.
    has
        Whether a matrix is asked for.
    """
    before, now = steps
    alone = stand_alone(earlier), stand_alone(later)
    if any(alone):
        if not all(alone):
            which = (before, now) if alone[0] else (now, before)
            message = (
                "{} holds adapters without their weights, and {} the weights: there is no update "
                "from one to the other, unless `base` says where the weights are"
            ).format(*which)
            yield Skip(path, "", "adapters-alone", message)
        return
    named = {plain_name(skip.tensor).removesuffix(".weight") for skip in later.skips}
    for name in _missing(later.parameters, earlier.parameters, has):
        if name.partition("[")[0].removesuffix(".weight") not in named:
            message = f"is in {before} but not in {now}: the next update spans the gap"
            yield Skip(path, name, "absent", message)
    for name in _missing(earlier.parameters, later.parameters, has):
        if name not in held:
            message = f"is in {now} but not in {before}: it has no update there"
            yield Skip(path, name, "new", message)


def stand_alone(contents: Contents) -> bool:
    """Whether most of a checkpoint is adapters without the weights that they change."""
    parameters = contents.parameters.values()
    return 2 * sum(one.tensor is None for one in parameters) > len(parameters)


def same_names(earlier: Contents, later: Contents, *, bare: int) -> tuple[Contents, int] | None:
    """``later`` with the names of ``earlier``, if they differ only in the prefix of a wrapper.

    That is certain if every matrix has a counterpart of the same shape in the other checkpoint, and
    the two names differ by the same prefix. None otherwise.

    Parameters
    ----------
    bare
        Length of the prefix in the names of ``earlier`` that earlier checkpoints did not have.

    Returns
    -------
    ``later`` renamed, and the new value of ``bare``.
    """
    names, others = set(earlier.parameters), set(later.parameters)
    if names == others:
        return None
    inner = {name[bare:] for name in names}
    added, removed = _prefix(inner, others), _prefix(others, inner)
    if not added and not removed:
        return None
    ours = min(names)[:bare] + removed
    renamed = _renamed(later, added, ours)
    now, before = renamed.parameters, earlier.parameters
    alike = all(now[name].shape == before[name].shape for name in before)
    return (renamed, len(ours)) if alike else None


def _prefix(short: Collection[str], long: Collection[str]) -> str:
    """The prefix of every name in ``long`` before one in ``short``; empty if there is none."""
    if len(short) != len(long) or not short:
        return ""
    example = min(short)
    starts = [name.removesuffix(example) for name in long if name.endswith(f".{example}")]
    return next((s for s in sorted(starts) if {f"{s}{name}" for name in short} == set(long)), "")


def _renamed(contents: Contents, old: str, new: str) -> Contents:
    """Contents with another prefix in the names of their matrices."""

    def moved(parameters: Parameters) -> dict[str, Parameter]:
        return {
            f"{new}{name.removeprefix(old)}": one._replace(
                name=f"{new}{name.removeprefix(old)}",
                module=f"{new}{one.module.removeprefix(old)}",
            )
            for name, one in parameters.items()
        }

    parameters, gradients = moved(contents.parameters), moved(contents.gradients)
    return replace(contents, parameters=parameters, gradients=gradients)
