"""Checks of single settings; each message names the setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankscope.errors import WrongSettingError


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `WrongSettingError` unless the value is one of the choices."""
    if value not in choices:
        raise WrongSettingError(f"{name} = {value!r} is unknown: choose from {', '.join(choices)}")


def at_least(name: str, value: int, minimum: int) -> None:
    """Raise `WrongSettingError` if the value is below the minimum."""
    if value < minimum:
        raise WrongSettingError(f"{name} = {value} must be at least {minimum}")


def positive(name: str, value: float) -> None:
    """Raise `WrongSettingError` unless the value is above zero and finite."""
    if not 0 < value < math.inf:
        raise WrongSettingError(f"{name} = {value} must be positive and finite")


def not_negative(name: str, value: float) -> None:
    """Raise `WrongSettingError` unless the value is at least zero and finite."""
    if not 0 <= value < math.inf:
        raise WrongSettingError(f"{name} = {value} must be at least 0 and finite")


def in_unit_interval(name: str, value: float) -> None:
    """Raise `WrongSettingError` unless the value is in [0, 1)."""
    if not 0 <= value < 1:
        raise WrongSettingError(f"{name} = {value} must be in [0, 1)")


def multiple_of(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise `WrongSettingError` unless the value is a positive multiple of another setting."""
    if value < divisor or value % divisor:
        raise WrongSettingError(
            f"{name} = {value} must be a multiple of {divisor_name} = {divisor}"
        )
