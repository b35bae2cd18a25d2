"""What a call asks for: names from a list, layers and steps; as values or as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index

from rankscope.errors import WrongSettingError, closest_first

StepRange = tuple[int, int | None, int]  # first, last (None: to the end), stride
Names = str | Iterable[str]
Layers = str | int | Iterable[int]
Steps = str | int | StepRange | Iterable[int]


@dataclass(frozen=True)
class Numbers:
    """Requested steps or layers: those listed, or else a range that includes its last number."""

    listed: tuple[int, ...] | None = None
    first: int = 0
    last: int | None = None
    stride: int = 1

    def __contains__(self, number: int | None) -> bool:
        if number is None:
            return False
        if self.listed is not None:
            return number in self.listed
        is_within = number >= self.first and (self.last is None or number <= self.last)
        return is_within and (number - self.first) % self.stride == 0

    def __str__(self) -> str:
        if self.listed is not None:
            return ",".join(map(str, self.listed))
        last = "" if self.last is None else self.last
        return f"{self.first}:{last}:{self.stride}"


def names_of(
    given: Names, known: Sequence[str], *, setting: str, none: bool = False
) -> tuple[str, ...]:
    """Names as given: ``"weight,update"``, ``"all"``, or any number of strings.

    Parameters
    ----------
    none
        Whether ``"none"`` stands for no name at all.

    Raises
    ------
    WrongSettingError
        If one is unknown, or ``"none"`` is one of several.
    """
    words = given.split(",") if isinstance(given, str) else given
    names = tuple(word.strip() for word in words)
    if none and names in ((), ("",), ("none",)):
        return ()
    if none and "none" in names:
        raise WrongSettingError(f"`{setting}`: none cannot be combined with other names")
    for name in names:
        if name not in (*known, "all"):
            raise _unknown(name, (*known, "all", *(["none"] if none else [])), setting)
    return tuple(known) if "all" in names else names


def require_name(given: str, known: Sequence[str], *, setting: str) -> None:
    """Raise `WrongSettingError` if a name is unknown."""
    if given not in known:
        raise _unknown(given, known, setting)


def _unknown(name: str, known: Sequence[str], setting: str) -> WrongSettingError:
    listing = closest_first(name, known)
    return WrongSettingError(f"unknown name {name!r} in `{setting}`: choose from {listing}")


def layers_of(given: Layers | None) -> Numbers | None:
    """Layers as given: ``3``, ``[0, 3]``, ``"0,3"``, or ``"0:3"`` for 0 to 3; None for None.

    Raises
    ------
    WrongSettingError
        If it is none of these.
    """
    return None if given is None else _numbers(given, "layers", "0,3,6 nor like 0:6")


def steps_of(given: Steps | None) -> Numbers | None:
    """Steps as given: ``[0, 100]``, ``"0,100"``, or a range; None for None.

    A range is ``"0:1000:100"`` or the tuple ``(0, 1000, 100)``: first step, last step, which is
    included, and stride. In the text each may be left out; a last step of None is the end.

    Raises
    ------
    WrongSettingError
        If it is none of these.
    """
    if isinstance(given, tuple):
        first, last, stride = given
        return _range(first, last, stride, "steps")
    return None if given is None else _numbers(given, "steps", "0,100,200 nor like 0:20000:1000")


def _numbers(given: str | int | Iterable[int], setting: str, forms: str) -> Numbers:
    try:
        if isinstance(given, str) and ":" in given:
            parts = [int(part) if part else None for part in given.split(":")]
            first, last, stride = (*parts, None) if len(parts) == 2 else parts
            return _range(first or 0, last, 1 if stride is None else stride, setting)
        if isinstance(given, str):
            return Numbers(tuple(map(int, given.split(","))))
        return Numbers(tuple(map(index, given)) if isinstance(given, Iterable) else (index(given),))
    except (TypeError, ValueError):
        raise WrongSettingError(f"`{setting}` {given!r} is neither like {forms}") from None


def _range(first: int, last: int | None, stride: int, setting: str) -> Numbers:
    if stride < 1:
        raise WrongSettingError(f"the stride of `{setting}` is {stride}: it must be 1 or more")
    return Numbers(None, first, last, stride)
