"""The step of one checkpoint, from its name and from the small files beside its weights.

A name is that of a folder, of a file without its suffix, or of a branch. Names are free text, so a
number is a step only after a word that means one, as in ``checkpoint-500``; it is not in
``llama-1b``, ``model-00001-of-00006``, ``pico-decoder-small-1`` or ``checkpoint-2024-05-11``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.name_words import COPIES

# File beside the weights → its key for the optimizer steps completed, most trusted first. Micro
# steps do not count (the `global_step` of a training_state.json).
STATE_FILES = {
    "state.json": "step",
    "trainer_state.json": "global_step",
    "training_state.json": "update_step",
}
LIMIT = 10**18  # tables hold steps as 64-bit integers
# Digits that count nothing: numbers of shards, and calendar dates. No date ends in 00, as steps
# that are worth saving do.
SHARD = r"\d{5}-of-\d{5}"
DATE = r"(?<!\d)(?:19|20)\d\d(?P<dash>[-_]?)(?:0[1-9]|1[0-2])(?P=dash)(?:0[1-9]|[12]\d|3[01])(?!\d)"
NO_COUNT = re.compile(rf"{SHARD}|{DATE}", re.ASCII)
SUFFIX = re.compile(r"\.[A-Za-z]+[0-9]?")
UNFINISHED = re.compile(r"(?:^|[-_.])(?:tmp|temp|partial)(?:$|[-_.])")
# Not the start of a longer number, of a version (3.5) or of a size (7b); 10k is 10000.
NUMBER = r"(?P<number>\d{1,18})(?P<thousands>k?)(?![a-z\d]|\.\d)"
# max_steps_1000 is a setting of the run, not a step that it reached.
SETTING = r"(?P<setting>(?:max|min|total|num|n|warm_?up|save|eval|log|lr)[-_])?"
# Most certain first. `checkpoint_3_5000` has the epoch before the step.
STEP_PATTERNS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"(?:^|[^a-z]){SETTING}(?:global)?steps?[-_= ]?{NUMBER}",
        rf"(?:^|[^a-z]){SETTING}(?:iter(?:ation)?|update)s?[-_= ]?{NUMBER}",
        rf"(?:^|[^a-z]){SETTING}(?:checkpoint|ckpt)(?:_\d{{1,3}}(?=_\d{{3,}}$))?[-_= ]?{NUMBER}",
        r"^(?:model_)?(?P<number>\d{1,18})$",
        r"^(?P<number>\d{1,18})(?P<thousands>k?)[-_ ]?"
        r"(?:checkpoint|ckpt|(?:step|iter|iteration|update)s?)$",
    )
)
TOKENS = re.compile(
    r"(?:^|[^a-z])tokens?[-_=]?(\d{1,18}(?:\.\d{1,6})?)([kmbt]?)(?![a-z\d])"
    r"|(?:^|[^a-z\d.])(\d{1,18}(?:\.\d{1,6})?)([kmbt])(?:t|[-_]?tokens?)(?![a-z\d])",
    re.ASCII,
)
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
STAGE = re.compile(
    r"(?:it[-_])?(?:(?:stage|phase|decay|cool-?down|long-?context|lc|sft|dpo|rl)(?![a-z])"
    r"|(?:pre|mid)-?train(?:ing)?(?![a-z])|anneal(?:ing)?(?![a-z]))"
)
NO_STAGE = re.compile(r"(?:[-_](?:global|model|epoch[-_=]?\d+))+$")


def step_of(path: Path) -> tuple[int, str] | None:
    """Step of a checkpoint and its source, a file's name or ``folder``; None if unknown.

    Raises
    ------
    RankscopeError
        If a state file is damaged.
    """
    for name, key in STATE_FILES.items():
        step = read_json(path / name).get(key)
        if type(step) is int and 0 <= step < LIMIT:
            return step, name
    step = step_in_name(stated_name(path))
    return None if step is None else (step, "folder")


def stated_name(path: Path) -> str:
    """Name of a folder, or of a file without its suffix, as the functions below take it.

    What follows a dot is not a suffix if it has a dash or several digits: ``model.ckpt-1000``. The
    suffix of ``step_100.pt.bak`` is the inner one, so that the name shows that it is a copy.
    """
    if not SUFFIX.fullmatch(path.suffix) or not path.is_file():
        return path.name
    return path.stem if suffix_of(path) == path.suffix else Path(path.stem).stem + path.suffix


def suffix_of(path: Path) -> str:
    """Suffix of a file, which shows its kind: ``.pt`` for ``step_100.pt.bak``."""
    inner = Path(path.stem).suffix
    is_copy = path.suffix[1:].lower() in COPIES and SUFFIX.fullmatch(inner)
    return inner if is_copy else path.suffix


def step_in_name(name: str) -> int | None:
    """Step that a name states: ``step-00002000``, ``checkpoint-500``, ``2000``, ``000600_ckpt``.

    Of several numbers, the last after the word step counts (``epoch=0-step=100``). A folder that is
    still being written (``tmp-checkpoint-500``) states none.
    """
    found = stated_step(name)
    if found is None:
        return None
    step = int(found["number"]) * (1000 if found.groupdict().get("thousands") else 1)
    return step if step < LIMIT else None


def tokens_in_name(name: str) -> int | None:
    """Number of tokens seen that a name states: ``step1000-tokens4B``, ``step-001000-2BT``."""
    found = TOKENS.search(name.lower())
    if found is None:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(Decimal(number) * UNITS[unit])


def stage_in_name(name: str) -> str | None:
    """Stage of a training that a name states before the step, in lower case.

    It is ``stage2-ingredient1`` in ``stage2-ingredient1-step1000-tokens5B`` and ``anneal`` in
    ``anneal_iter_0001000``; ``model-step-100`` has none.
    """
    found = stated_step(name)
    if found is None:
        return None
    before = NO_STAGE.sub("", found.string[: found.start()].strip("-_ "))
    return before if STAGE.match(before) else None


def stated_step(name: str) -> re.Match[str] | None:
    """Match of the step that a name states, its digits in the group ``number``."""
    text = NO_COUNT.sub(lambda date: " " * len(date[0]), name.lower())
    if UNFINISHED.search(text):
        return None
    for pattern in STEP_PATTERNS:
        found = [match for match in pattern.finditer(text) if not match.groupdict().get("setting")]
        if found:
            return found[-1]
    return None


def is_unfinished(name: str) -> bool:
    """Whether a name says that its file or folder is still being written."""
    return UNFINISHED.search(name.lower()) is not None
