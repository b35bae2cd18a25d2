"""What values a setting may have; each message names the setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankscope.errors import RankscopeError


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `RankscopeError` unless the value is one of the choices."""
    if value not in choices:
        raise RankscopeError(f"{name} = {value!r} is none of {', '.join(choices)}")


def at_least(name: str, value: int, minimum: int) -> None:
    """Raise `RankscopeError` if the value is below the minimum."""
    if value < minimum:
        raise RankscopeError(f"{name} = {value} must be at least {minimum}")


def positive(name: str, value: float) -> None:
    """Raise `RankscopeError` unless the value is above zero and finite."""
    if not 0 < value < math.inf:
        raise RankscopeError(f"{name} = {value} must be positive and finite")


def not_negative(name: str, value: float) -> None:
    """Raise `RankscopeError` unless the value is zero or above it, and finite."""
    if not 0 <= value < math.inf:
        raise RankscopeError(f"{name} = {value} must be at least 0 and finite")


def in_unit_interval(name: str, value: float) -> None:
    """Raise `RankscopeError` unless the value lies in [0, 1)."""
    if not 0 <= value < 1:
        raise RankscopeError(f"{name} = {value} must lie in [0, 1)")


def multiple_of(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise `RankscopeError` unless the value is a positive multiple of another setting's."""
    if value < divisor or value % divisor:
        raise RankscopeError(f"{name} = {value} must be a multiple of {divisor_name} = {divisor}")
