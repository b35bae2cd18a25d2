"""What lies beside a series and is not counted: the final model, the best one, copies.

Its place is in the series if it says by more than its name that it is of a step which nobody has.
Else it is left out, and named. Its name must be made of words that any training uses, or those of
the series: a ``tuned`` model that states step 5000 is not the next step of what lies beside it.
That errs where the final model has a name of its own, which is then named as left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.weights_file import step_under
from rankscope.checkpoints.name_parts import parts_of
from rankscope.checkpoints.name_words import COPIES, STEPS
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.same_weights import hold_the_same
from rankscope.checkpoints.series import Found, Series
from rankscope.checkpoints.sibling_names import core_of, lone_number

WITH_EPOCHS = frozenset(("torch", "nanogpt", "lightning"))


def joined(series: list[Series], found: Found, *, is_root: bool = False) -> Series | None:
    """The series that a checkpoint beside it belongs to, after putting it there; None if none."""
    target = _series_of(series, found, is_root=is_root)
    if target is None or found.stated is None or target.unit != "step":
        return None
    layouts = {one.layout for one, _ in target.members.values()}
    step, source = found.stated
    if step in target.members or found.layout not in layouts:
        return None
    target.members[step] = (found, source)
    return target


def why_left_out(
    series: list[Series], found: Found, options: Options, *, is_root: bool = False
) -> str:
    """Why a checkpoint beside a series is none of it, in words."""
    target = _series_of(series, found, is_root=is_root)
    if target is None:
        return "lies beside a series, and its name has no number of it"
    step = None if found.stated is None else found.stated[0]
    number = lone_number(found.name)
    if step is None and number is not None and number[1] == target.unit:
        step = number[0]
    there = target.members.get(max(target.members) if step is None else step)
    if there is not None and there[0].layout:
        pair = [one.at(one.step or (0, "order"), options) for one in (found, there[0])]
        if hold_the_same(*pair):
            return f"holds the same weights as {there[0].path.name}"
    if step is None:
        return f"states no {target.unit} of the series beside it"
    if there is not None:
        return f"is of {target.unit} {step}, as is {there[0].path.name}, which is read"
    return f"is of step {step}, which is not what the series beside it counts or holds"


def resolved_doubles(series: Series, options: Options) -> Iterator[tuple[Found, Skip, bool]]:
    """What is left out since another has its step: the line, and whether it costs anything.

    The same weights once more cost nothing.
    """
    for found, step in series.doubles:
        kept = series.members[step][0]
        pair = [one.at((step, "order"), options) for one in (found, kept)]
        if found.layout and kept.layout and hold_the_same(*pair):
            message = f"holds the same weights as {kept.path.name}, {series.unit} {step}: read once"
            yield found, Skip(str(found.path), "", "identical-copy", message), False
        else:
            what = f"is {series.unit} {step}, and so is {kept.path.name}, with other weights"
            message = f"{what}: it is left out"
            yield found, Skip(str(found.path), "", "duplicate-step", message), True


def counts_epochs(series: Series) -> bool:
    """Whether files called after no unit state an epoch that goes with their numbers.

    ``checkpoint_0010`` with the epoch 10 or 11 within. Opens the first and the last.
    """
    if series.unit != "step" or STEPS & set(series.words):
        return False
    steps = sorted(s for s, (one, _) in series.members.items() if one.layout in WITH_EPOCHS)
    ends = {step: series.members[step] for step in (*steps[:1], *steps[-1:])}
    found = [
        (step, step_under(one.path, "epoch"))
        for step, (one, source) in ends.items()
        if source == "file"
    ]
    behind = {epoch[0] - step for step, epoch in found if epoch is not None}
    return len(behind) == 1 and len(found) == len(ends) and behind <= {-1, 0, 1}


def _series_of(series: list[Series], found: Found, *, is_root: bool) -> Series | None:
    """The series that a name without a number can mean."""
    own = _core(parts_of(found.name).words) if not is_root else ()
    alike = [one for one in series if _core(one.words) == own] if own else []
    if alike or own:
        return alike[0] if len(alike) == 1 else None
    plain = [one for one in series if not one.title]
    return series[0] if len(series) == 1 else plain[0] if len(plain) == 1 else None


def _core(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in core_of(words) if word != "#" and word not in COPIES)
