"""Whether a checkpoint of a series goes on from the one before it, or something else begins there.

The difference of two models is not an update, and looks like one. So a series is taken for one
training only as long as names, shapes, configurations and logs agree. All of it is told from
headers and from small JSON files beside the weights.

What the rules cost when they err: a break that is none loses the updates of one interval, and a
line names both steps. A break that goes unseen, as between two trainings of one model without
logs, gives an update that is none.
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
from rankscope.checkpoints.regions import Part
from rankscope.errors import RankscopeError

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
SIZES = ("model_type", *NAMES["width"], *NAMES["heads"], *LAYERS)
Parameters = Mapping[str, Parameter]
History = Mapping[tuple[int, str], frozenset[str]]  # step and name of a loss → what was logged


@dataclass(frozen=True)
class Trace:
    """What tells of a checkpoint's training beside its tensors: its config, and its log so far."""

    config: Mapping[str, Any]
    history: History


def trace_of(checkpoint: Path) -> Trace:
    """Read what lies beside the weights; a file that is absent or damaged says nothing."""
    config = _read(checkpoint / "config.json")
    nested = config.get("text_config")
    stated = config | nested if isinstance(nested, dict) else config
    history: dict[tuple[int, str], frozenset[str]] = {}
    records = _read(checkpoint / "trainer_state.json").get("log_history")
    for record in records if isinstance(records, list) else ():
        step = record.get("step") if isinstance(record, dict) else None
        if type(step) is int:
            losses = {key: value for key, value in record.items() if str(key).endswith("loss")}
            for key, value in losses.items():
                place = step, str(key)
                history[place] = history.get(place, frozenset()) | {repr(value)}
    return Trace({key: stated[key] for key in SIZES if key in stated}, history)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except RankscopeError:
        return {}


def difference(earlier: Contents, later: Contents) -> str:
    """What makes two checkpoints different models, in words; empty where nothing does.

    At least half of the matrices must have the same names, and a third of these the same shapes:
    so a resized vocabulary, a new head, and layers that are missing in one file are no other
    model. Adapters that stand alone are held against those weights only that they belong to. A
    family counts where it reads the same tensors otherwise, such as transposed.
    """
    before, now = earlier.parameters, later.parameters
    common = [name for name in now if name in before]
    alone = stand_alone(earlier) or stand_alone(later)
    whole = (min if alone else max)(len(before), len(now))
    if 2 * len(common) < whole:
        examples = ", ".join(_example(own, other) for own, other in ((before, now), (now, before)))
        return f"other names, {len(common)} of {whole} matrices in common ({examples})"
    changed = [name for name in common if now[name].shape != before[name].shape]
    if 3 * len(changed) > 2 * len(common):
        name = changed[0]
        was, are = list(before[name].shape), list(now[name].shape)
        return f"other shapes of {len(changed)} of {len(common)} matrices ({name}: {was}, {are})"
    if not alone and not all(_read_alike(before[name], now[name]) for name in common):
        return f"another model: its family was {earlier.family}, and is {later.family}"
    if earlier.heads and later.heads and earlier.heads != later.heads:
        counts = (f"{heads.count} of size {heads.size}" for heads in (earlier.heads, later.heads))
        return "another model: its heads were {}, and are {}".format(*counts)
    return ""


def difference_of_traces(earlier: Trace, later: Trace) -> str:
    """What says that two checkpoints are of different trainings; empty where nothing does.

    The log of a training that goes on holds what was logged before. Where the two have a step in
    common, and the same loss was logged there with other values, they are of two trainings.
    """
    for key in [key for key in earlier.config if key in later.config]:
        was, now = earlier.config[key], later.config[key]
        if was != now:
            return f"another model: its config.json stated {key} {was}, and states {now}"
    for place, values in earlier.history.items():
        others = later.history.get(place)
        if others is not None and not others & values:
            step, loss = place
            return (
                f"the history of another run: its trainer_state.json states {loss} "
                f"{min(others)} at step {step}, and that of the checkpoint before {min(values)}"
            )
    return ""


def _read_alike(one: Parameter, other: Parameter) -> bool:
    """Whether two checkpoints' families take a matrix for the same, turned and cut alike."""
    both = one.tensor, other.tensor
    return one.role == other.role and len({isinstance(tensor, Part) for tensor in both}) == 1


def _missing(
    from_these: Parameters, of_those: Parameters, has: Callable[[Parameter], bool]
) -> list[str]:
    return [name for name, one in of_those.items() if name not in from_these and has(one)]


def _example(own: Collection[str], other: Collection[str]) -> str:
    name = next((name for name in own if name not in other), "")
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
    """A skip for every matrix that one of two checkpoints of a series lacks.

    Not where a skip of the later one names it already. Adapters that stand alone come and go
    without the weights that they belong to, which are not missed then.

    Parameters
    ----------
    held
        Matrices of all checkpoints before: what comes back is not new.
    path
        Of the later one.
    steps
        The two, in words.
    has
        Whether a matrix is asked for.
    """
    if stand_alone(earlier) or stand_alone(later):
        return
    before, now = steps
    said = {plain_name(skip.tensor).removesuffix(".weight") for skip in later.skips}
    for name in _missing(later.parameters, earlier.parameters, has):
        if name.partition("[")[0].removesuffix(".weight") not in said:
            message = f"is in {before} and not in {now}: the next update spans the gap"
            yield Skip(path, name, "absent", message)
    for name in _missing(earlier.parameters, later.parameters, has):
        if name not in held:
            message = f"is in {now} and not in {before}: there is no update of it"
            yield Skip(path, name, "new", message)


def stand_alone(contents: Contents) -> bool:
    """Whether most of a checkpoint is adapters without the weights that they belong to."""
    parameters = contents.parameters.values()
    return 2 * sum(one.tensor is None for one in parameters) > len(parameters)


def same_names(earlier: Contents, later: Contents, *, bare: int) -> tuple[Contents, int] | None:
    """``later`` under the names of ``earlier``, where a wrapper's prefix is all that differs.

    It is certain where every matrix of the two has its like in the other, with the same shape: the
    same name behind one prefix. None where it is not.

    Parameters
    ----------
    bare
        Length of the prefix in the names of ``earlier`` that earlier checkpoints went without.

    Returns
    -------
    ``later`` renamed, and ``bare`` as it is from there on.
    """
    names, others = set(earlier.parameters), set(later.parameters)
    if names == others:
        return None
    inner = {name[bare:] for name in names}
    added, removed = _prefix(inner, others), _prefix(others, inner)
    if not added and not removed:
        return None
    ours = min(names)[:bare] + removed
    found = _renamed(later, added, ours)
    now, before = found.parameters, earlier.parameters
    alike = all(now[name].shape == before[name].shape for name in before)
    return (found, len(ours)) if alike else None


def _prefix(short: Collection[str], long: Collection[str]) -> str:
    """What every name of ``long`` has before one of ``short``, which are as many; else empty."""
    if len(short) != len(long) or not short:
        return ""
    example = min(short)
    starts = [name.removesuffix(example) for name in long if name.endswith(f".{example}")]
    return next((s for s in sorted(starts) if {f"{s}{name}" for name in short} == set(long)), "")


def _renamed(contents: Contents, old: str, new: str) -> Contents:
    """Contents with another prefix in the names of their matrices."""

    def moved(parameters: Parameters) -> dict[str, Parameter]:
        return {
            f"{new}{name.removeprefix(old)}": replace(
                one,
                name=f"{new}{name.removeprefix(old)}",
                module=f"{new}{one.module.removeprefix(old)}",
            )
            for name, one in parameters.items()
        }

    parameters, gradients = moved(contents.parameters), moved(contents.gradients)
    return replace(contents, parameters=parameters, gradients=gradients)
