"""What `represent` is asked for, by its question, and which of its settings are wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from rankscope.errors import WrongSettingError
from rankscope.evaluation.text_sets import TextSet, text_sets
from rankscope.pipeline.choices import Names, names_of, require_name, steps_of
from rankscope.representing.collected import At, Energy
from rankscope.representing.comparison_plans import COMPARISONS, Comparing
from rankscope.representing.feature_tasks import FeatureRequest
from rankscope.representing.probe_windows import Features, ProbeOptions
from rankscope.representing.represent_question import RepresentQuestion
from rankscope.representing.stored_activations import STORED_TEXTS


def asked_for(question: RepresentQuestion, *, out: Path | None) -> FeatureRequest:
    """What every checkpoint is asked for.

    Raises
    ------
    WrongSettingError
        If a setting is unknown, contradicts another, or names text that does not exist.
    """
    given = {"tokens": question.tokens, "window": question.window, "kept": question.kept}
    for name, count in given.items():
        if count is not None and count < 1:
            raise WrongSettingError(f"`{name}` is {count}: give 1 or more")
    require_name(question.features, get_args(Features), setting="features")
    kinds = names_of(question.at, get_args(At), setting="at")
    probe = ProbeOptions(question.features, question.tokens, question.window, question.kept)
    one = _one_text(question.text)
    energy = energy_of(question.energy, out=out)
    if energy and one is None:
        raise WrongSettingError("`energy` takes models that read: give `text`")
    options = question.options()
    steps = steps_of(question.steps)
    return FeatureRequest(one, probe, tuple(dict.fromkeys(kinds)), options, steps, energy)


def energy_of(given: Names, *, out: Path | None) -> tuple[Energy, ...]:
    """Matrices that meet what they read, from the parameter ``energy`` of `represent`.

    Raises
    ------
    WrongSettingError
        If a name is unknown, or there is no folder that the table could be written to.
    """
    names = names_of(given, get_args(Energy), setting="energy", none=True)
    if names and out is None:
        raise WrongSettingError("`energy` writes a table of its own: give a folder as `out`")
    return tuple(name for name in get_args(Energy) if name in names)


def _one_text(given: Iterable[str | Path]) -> TextSet | None:
    """All text sets as one; None for none."""
    sets = text_sets(map(str, given))
    if not sets:
        return None
    name = "+".join(one.name for one in sets)
    if name in STORED_TEXTS:
        message = f"`text` cannot be called {name!r}, the name of stored activations: give it as "
        raise WrongSettingError(f"{message}NAME=PATH")
    states = dict(state for one in sets for state in one.states)
    paths = tuple(dict.fromkeys(path for one in sets for path in one.paths))
    return TextSet(name, paths, tuple(states.items()))


def comparisons_of(given: Names | None, *, out: Path | None) -> tuple[Comparing, ...]:
    """What to compare with, from the parameter ``compare`` of `represent`.

    Raises
    ------
    WrongSettingError
        If a name is unknown, or there is no folder that comparisons could be written to.
    """
    if given is None:
        return ("last", "previous") if out is not None else ()
    names = names_of(given, COMPARISONS, setting="compare", none=True)
    if names and out is None:
        raise WrongSettingError("`compare` writes a table of its own: give a folder as `out`")
    return tuple(name for name in COMPARISONS if name in names)
