"""The rank or slice that a name states: how files of a parallel training are called.

The rule knows words and numbers, not trainers: a word for a process, or for a part of what all of
them hold, followed by a number (``mp_rank_00``, ``fsdp_rank0``, ``model-part-1``, ``tp0_pp1``,
``shard_0``), counted from zero or one, padded or not. The price of an error: a whole model with
such a name is refused as a slice if a file beside it differs only in the number; a line says so,
and renaming it helps. A slice whose name has another word is taken for a model, which is why there
are many words.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

KINDS = (
    "local|global|mp|tp|pp|dp|cp|sp|ep|wp|zp|zero|fsdp|ddp|dist|model|tensor|pipeline|pipe|expert|"
    "data|sequence|context|weight|process|gpu"
)
# Words with other meanings too are believed only where files beside each other agree.
SURE = (
    "ranks?|slices?|shards?|partitions?|parts?|pieces?|consolidated|(?:pp|pipe|pipeline)[-_.]?stage"
)
UNSURE_WORDS = "process|proc|gpu|device|chunks?|fragments?"
UNSURE = rf"{UNSURE_WORDS}|(?:{KINDS})[-_. ]?parallel"
SHORT = "tp|pp|mp|wp|zp"  # `ep0` is an epoch and `cp-0001` a checkpoint more often than a process
NUMBER = r"[-_.= ]?(?:(?:id|idx|no|num)[-_.= ]?)?\d{1,6}(?:[-_. ]?of[-_. ]?\d{1,6})?"
END = rf"(?:(?![a-z\d])|(?=(?:{SHORT})\d))"
# All that `SLICE` matches has one of these before a number; to compile that takes 20 ms.
MAY_BE = re.compile(rf"(?:{SURE}|{UNSURE_WORDS}|parallel|{SHORT}|of){NUMBER}", re.ASCII)
SLICE = (
    # Megatron's mp_rank_00_001 has the pipeline stage after the tensor rank.
    rf"(?<![a-z])mp_?rank_?\d{{1,6}}(?:_\d{{3}})+{END}"
    # DeepSeek's model0-mp8 has the rank first.
    rf"|(?<![a-z])model\d{{1,4}}-mp\d{{1,4}}{END}"
    rf"|(?<![a-z])(?:(?:{KINDS})(?:[-_. ]?parallel)?[-_. ]?)*"
    rf"(?:(?:{SURE})|(?P<unsure>{UNSURE})){NUMBER}{END}"
    rf"|(?<![a-z])(?P<short>{SHORT}){NUMBER}{END}"
    # A shard of Hugging Face has five digits, and tensors that the others lack.
    rf"|(?<![a-z\d])(?P<bare>\d{{1,4}})[-_. ]?of[-_. ]?\d{{1,4}}{END}"
)
# `lora_rank_8` is a setting of one model, and `epoch_1_of_4` a time.
SETTING = re.compile(
    r"(?:lora|dora|adapters?|low|full|svd|max|min|target|init|matrix|effective|stable|numerical)"
    r"[-_. ]?$"
)
TIME = re.compile(
    r"(?:epochs?|steps?|iter(?:ation)?s?|updates?|rounds?|cycles?|batch(?:es)?|checkpoint|ckpt|ep|"
    r"save|snapshot|seed|fold|run|trial)[-_.= ]?$"
)
OF = re.compile(r"of[-_. ]?(\d+)$")
SIZE = re.compile(rf"(?:world|{KINDS})[-_.]?(?:world[-_.]?|parallel[-_.]?)?size[-_=.]?(\d{{1,6}})")
MP_RANK = re.compile(r"mp_?rank_?")
RANK_OF_WORLD = re.compile(r"model(\d+)-mp(\d+)")


@dataclass(frozen=True)
class SliceName:
    """A name that states a rank or slice.

    Attributes
    ----------
    stem
        The name without that: ``step_100`` of ``step_100_rank_0``.
    form
        The name with a mark for each such number, the same for all slices of a checkpoint.
    numbers
        The numbers in order: tensor rank and pipeline stage of ``mp_rank_00_001``.
    world
        The number of slices where the name states it; else 0.
    is_padded
        Whether a number has leading zeros, which settings do not have.
    is_sure
        Whether the name alone decides; else others beside it must agree.
    """

    stem: str
    form: str
    numbers: tuple[int, ...]
    world: int = 0
    is_padded: bool = False
    is_sure: bool = True


def slice_in_name(name: str) -> tuple[str, int] | None:
    """A name without its rank, slice, shard or partition, and the first number of it.

    None for a name that does not state one.

    Examples
    --------
    >>> slice_in_name("step_100_rank_1")
    ('step_100', 1)
    >>> slice_in_name("consolidated.00")
    ('consolidated', 0)
    >>> slice_in_name("lora_rank_8"), slice_in_name("model-00001-of-00002")
    (None, None)
    """
    sliced = parsed(name)
    return None if sliced is None else (sliced.stem, sliced.numbers[0])


@lru_cache(maxsize=2**16)
def parsed(name: str) -> SliceName | None:
    """The ranks and slices that the name of a file or folder states; None if there are none."""
    text = name.lower()
    if not text.isascii():  # lower case may then be of another length
        text = "".join(c.lower() if c.isascii() else "?" for c in name)
    if MAY_BE.search(text) is None:
        return None
    found = re.finditer(SLICE, text, re.ASCII)
    matches = [match for match in found if not _means_something_else(match)]
    if not matches:
        return None
    stem, form, at, digits = "", "", 0, []
    worlds = [int(size) for size in SIZE.findall(text)]
    for match in matches:
        stated, total = _numbers(match[0])
        digits += stated
        worlds += total
        stem += name[at : match.start()]
        form += text[at : match.start()] + re.sub(r"\d+", "#", match[0])
        at = match.end()
    stem, form = _tidied(stem + name[at:]), form + text[at:]
    if not re.search(r"[a-zA-Z\d]", stem.partition(".")[0]):
        first = re.sub(r"[-_.= ]*\d.*$", "", name[matches[0].start() : matches[0].end()])
        stem = first + ("" if not stem else "." + stem.lstrip("."))
    return SliceName(
        stem,
        form,
        tuple(map(int, digits)),
        math.prod(worlds) if worlds else 0,
        any(len(one) > 1 and one.startswith("0") for one in digits),
        not all(m["unsure"] or m["short"] or m["bare"] for m in matches),
    )


def _means_something_else(match: re.Match[str]) -> bool:
    before = match.string[: match.start()]
    return bool(SETTING.search(before) or (match["bare"] and TIME.search(before)))


def _numbers(text: str) -> tuple[list[str], list[int]]:
    """The digits of a match, and the total that it states after "of" or "mp"."""
    if ranked := RANK_OF_WORLD.match(text):
        return [ranked[1]], [int(ranked[2])]
    total = [int(count) for count in OF.findall(text)]
    text = OF.sub("", text)
    if MP_RANK.match(text):
        return re.findall(r"\d+", text), total
    return re.findall(r"\d+", text)[-1:], total


def _tidied(stem: str) -> str:
    """A stem without the separators that a removed word leaves."""
    stem = re.sub(r"([-_. ])[-_. ]+", r"\1", stem)
    return re.sub(r"[-_ ]+(?=\.|$)", "", stem).lstrip("-_ ").rstrip("-_. ")
