"""The family of a model of which only adapters are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rankscope.checkpoints.families.family import GENERIC, Family, families

SHORT = 3  # letters up to which a name must be a word by itself


def adapted_family(shapes: Mapping[str, tuple[int, ...]], named: str = "") -> Family:
    """The family that knows most of the modules that adapters change.

    Adapters are put on some projections only, so that no family has all its keys; and their deltas
    are (outputs, inputs) whatever their weights are. Of families that know equally many and say the
    same of all, the simplest is taken; where they differ, the one that the base's name speaks of.
    Where that says nothing either, the family ``generic``: a role is missing rather than wrong.
    Families that a config has to state something for are taken only where the name speaks of them.

    Parameters
    ----------
    shapes
        Shape of the delta of each module.
    named
        What the adapter's config calls its base model.
    """
    answers = {name: _answer(family, shapes) for name, family in families().items()}
    known = {name: sum(one != ("other", None) for one in a) for name, a in answers.items()}
    most = max(known.values(), default=0)
    best = [name for name, count in known.items() if count == most and most]
    called = _called(best, named)
    best = [name for name in best if not families()[name].when]
    said = {answers[name] for name in best}
    if called is None and len(said) != 1:
        return families()[GENERIC]
    return families()[called or (GENERIC if GENERIC in best else best[-1])]


def _answer(family: Family, modules: Iterable[str]) -> tuple[tuple[str, object], ...]:
    return tuple((family.role_of(module), family.fused_in(module)) for module in modules)


def _called(names: Iterable[str], named: str) -> str | None:
    """The family of which the base's name has a model type in it, the longest that there is."""
    words = re.split(r"[^a-z0-9]+", named.lower())
    text = "".join(words)
    fitting = [
        (len(kind), name)
        for name in names
        for kind in (*map(_plain, families()[name].model_types), _plain(name))
        if (kind in words if len(kind) <= SHORT else kind in text)
    ]
    return max(fitting)[1] if fitting else None


def _plain(kind: str) -> str:
    return re.sub(r"[^a-z0-9]", "", kind.lower())
