"""Checkpoints beside a series that have no number of it: the final model, the best one, copies.

One joins the series if more than its name states a step, and no other checkpoint has that step.
Otherwise it is left out with a note. Its name must consist of words that any training uses, or of
those of the series: a ``tuned`` model that states step 5000 is not the next step of the series
beside it. An error: a final model with an unusual name is left out, which the note says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rankscope.checkpoints.alike_names import core_of
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.weights_file import step_under
from rankscope.checkpoints.name_parts import parts_of
from rankscope.checkpoints.name_words import COPIES, STEPS
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.same_weights import hold_the_same
from rankscope.checkpoints.series import Candidate, Series
from rankscope.checkpoints.sibling_names import lone_number

WITH_EPOCHS = frozenset(("torch", "nanogpt", "lightning"))


def joined(series: list[Series], candidate: Candidate, *, is_root: bool = False) -> Series | None:
    """Put a checkpoint into the series beside it, and return that; None if it belongs to none."""
    target = _series_of(series, candidate, is_root=is_root)
    if target is None or candidate.stated is None or target.unit != "step":
        return None
    layouts = {one.layout for one, _ in target.members.values()}
    step, source = candidate.stated
    if step in target.members or candidate.layout not in layouts:
        return None
    target.members[step] = (candidate, source)
    return target


def why_left_out(
    series: list[Series], candidate: Candidate, options: Options, *, is_root: bool = False
) -> str:
    """Why a checkpoint beside a series does not belong to it, in words."""
    target = _series_of(series, candidate, is_root=is_root)
    if target is None:
        return "is beside a series, and its name has no number of that series"
    step = None if candidate.stated is None else candidate.stated[0]
    number = lone_number(candidate.name)
    if step is None and number is not None and number[1] == target.unit:
        step = number[0]
    there = target.members.get(max(target.members) if step is None else step)
    if there is not None and there[0].layout:
        pair = [one.at(one.step or (0, "order"), options) for one in (candidate, there[0])]
        if hold_the_same(*pair):
            return f"holds the same weights as {there[0].path.name}"
    if step is None:
        return (
            f"states no {target.unit} of the series beside it: to have it measured, copy it to a "
            "folder or file whose name states one"
        )
    if there is not None:
        return f"is of {target.unit} {step}, as is {there[0].path.name}, which is read"
    return f"is of step {step}, which is not what the series beside it counts or holds"


def resolved_doubles(series: Series, options: Options) -> Iterator[tuple[Candidate, Skip, bool]]:
    """Checkpoints that are left out because another has their step, each with its line.

    The last value says whether something is missing from the results, which it is not if the two
    hold the same weights.
    """
    for double, step in series.doubles:
        kept = series.members[step][0]
        pair = [one.at((step, "order"), options) for one in (double, kept)]
        if double.layout and kept.layout and hold_the_same(*pair):
            message = f"holds the same weights as {kept.path.name}, {series.unit} {step}: read once"
            yield double, Skip(str(double.path), "", "identical-copy", message), False
        else:
            what = f"is {series.unit} {step}, and so is {kept.path.name}, with different weights"
            message = f"{what}: it is left out"
            yield double, Skip(str(double.path), "", "duplicate-step", message), True


def step_mismatch(series: Series) -> Skip | None:
    """A remark on the checkpoints whose files state another step than their names do."""
    used = {id(one): step for step, (one, _) in series.members.items()}
    found = [(one, number) for one, number in series.contradicted if id(one) in used]
    if not found:
        return None
    one, number = found[0]
    assert one.stated is not None
    stated, source = one.stated
    more = f"; so do {len(found) - 1} more" if len(found) > 1 else ""
    counts = "its name counts" if used[id(one)] == number else f"{source} counts"
    message = f"its name states step {number}, and {source} step {stated}: {counts}{more}"
    return Skip(str(one.path), "", "step-mismatch", message)


def counts_epochs(series: Series) -> bool:
    """Whether the numbers of files, whose names give no unit, are the epochs that they store.

    ``checkpoint_0010`` stores epoch 10 or 11, for example. Opens the first and the last.
    """
    if series.unit != "step" or STEPS & set(series.words):
        return False
    steps = sorted(s for s, (one, _) in series.members.items() if one.layout in WITH_EPOCHS)
    ends = {step: series.members[step] for step in (*steps[:1], *steps[-1:])}
    epochs = [
        (step, step_under(one.path, "epoch"))
        for step, (one, source) in ends.items()
        if source == "file"
    ]
    behind = {epoch[0] - step for step, epoch in epochs if epoch is not None}
    return len(behind) == 1 and len(epochs) == len(ends) and behind <= {-1, 0, 1}


def _series_of(series: list[Series], candidate: Candidate, *, is_root: bool) -> Series | None:
    """The series that a name without a number can belong to."""
    own = _core(parts_of(candidate.name).words) if not is_root else ()
    alike = [one for one in series if _core(one.words) == own] if own else []
    if alike or own:
        return alike[0] if len(alike) == 1 else None
    plain = [one for one in series if not one.title]
    return series[0] if len(series) == 1 else plain[0] if len(plain) == 1 else None


def _core(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in core_of(words) if word != "#" and word not in COPIES)
