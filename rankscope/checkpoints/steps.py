"""What a checkpoint's name, and the small files beside its weights, say of its place in training.

Names are of folders, of files without their suffix, and of branches. They are free text, so a
number is taken for a step only behind a word that means one, such as in ``checkpoint-500``: not in
``llama-1b``, ``model-00001-of-00006``, ``pico-decoder-small-1`` or ``checkpoint-2024-05-11``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.name_words import COPIES

# File beside the weights → the key of optimizer steps completed; by trust. Where micro steps are
# counted too (the `global_step` of a training_state.json), they are not taken.
STATE_FILES = {
    "state.json": "step",
    "trainer_state.json": "global_step",
    "training_state.json": "update_step",
}
LIMIT = 10**18  # what tables hold

# Digits that count nothing: the number of a shard, and calendar dates. A step that is worth a name
# is round, and no date ends in 00.
SHARD = r"\d{5}-of-\d{5}"
DATE = r"(?<!\d)(?:19|20)\d\d(?P<dash>[-_]?)(?:0[1-9]|1[0-2])(?P=dash)(?:0[1-9]|[12]\d|3[01])(?!\d)"
NO_COUNT = re.compile(rf"{SHARD}|{DATE}", re.ASCII)
SUFFIX = re.compile(r"\.[A-Za-z]+[0-9]?")
UNFINISHED = re.compile(r"(?:^|[-_.])(?:tmp|temp|partial)(?:$|[-_.])")
# A number is not the start of a longer one, of a version (3.5) or of a size (7b); 10k is 10000.
NUMBER = r"(?P<number>\d{1,18})(?P<thousands>k?)(?![a-z\d]|\.\d)"
# max_steps_1000 is a setting of the run, and no step that it reached.
SETTING = r"(?P<setting>(?:max|min|total|num|n|warm_?up|save|eval|log|lr)[-_])?"
# Kinds of names, surest first. `checkpoint_3_5000` has the epoch before the step.
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
    """Step of a checkpoint and its source, a file's name or ``folder``; None if nothing tells.

    Raises
    ------
    RankscopeError
        If a state file is there and damaged.
    """
    for name, key in STATE_FILES.items():
        step = read_json(path / name).get(key)
        if type(step) is int and 0 <= step < LIMIT:
            return step, name
    step = step_in_name(stated_name(path))
    return None if step is None else (step, "folder")


def stated_name(path: Path) -> str:
    """Name of a folder, or of a file without its suffix: what the functions below take.

    What stands behind a dot is no suffix if numbers or dashes are in it: ``model.ckpt-1000``. Of
    ``step_100.pt.bak`` it is the inner one, so that the name says that it is a copy.
    """
    if not SUFFIX.fullmatch(path.suffix) or not path.is_file():
        return path.name
    return path.stem if suffix_of(path) == path.suffix else Path(path.stem).stem + path.suffix


def suffix_of(path: Path) -> str:
    """Suffix of a file, which tells its kind: the inner one of ``step_100.pt.bak``."""
    inner = Path(path.stem).suffix
    is_copy = path.suffix[1:].lower() in COPIES and SUFFIX.fullmatch(inner)
    return inner if is_copy else path.suffix


def step_in_name(name: str) -> int | None:
    """Step that a name states: ``step-00002000``, ``checkpoint-500``, ``2000``, ``000600_ckpt``.

    Of several, the last behind the word step counts (``epoch=0-step=100``). A folder that is still
    being written (``tmp-checkpoint-500``) states none.
    """
    found = stated_step(name)
    if found is None:
        return None
    step = int(found["number"]) * (1000 if found.groupdict().get("thousands") else 1)
    return step if step < LIMIT else None


def tokens_in_name(name: str) -> int | None:
    """Tokens seen that a name states: ``step1000-tokens4B``, ``step-001000-2BT``."""
    found = TOKENS.search(name.lower())
    if found is None:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(Decimal(number) * UNITS[unit])


def stage_in_name(name: str) -> str | None:
    """Stage of a training that a name states before the step, in lower case.

    ``stage2-ingredient1-step1000-tokens5B`` is of ``stage2-ingredient1``, and
    ``anneal_iter_0001000`` of ``anneal``; ``model-step-100`` is of none.
    """
    found = stated_step(name)
    if found is None:
        return None
    before = NO_STAGE.sub("", found.string[: found.start()].strip("-_ "))
    return before if STAGE.match(before) else None


def stated_step(name: str) -> re.Match[str] | None:
    """Where a name states a step, its digits in the group ``number``; dates are blanked out."""
    text = NO_COUNT.sub(lambda date: " " * len(date[0]), name.lower())
    if UNFINISHED.search(text):
        return None
    for pattern in STEP_PATTERNS:
        found = [match for match in pattern.finditer(text) if not match.groupdict().get("setting")]
        if found:
            return found[-1]
    return None


def is_unfinished(name: str) -> bool:
    """Whether a name says that what it names is still being written."""
    return UNFINISHED.search(name.lower()) is not None
