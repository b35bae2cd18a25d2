"""Trying again what failed for the moment, such as a connection that was cut."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from rankscope.errors import RankscopeError, RankscopeWarning, printable

T = TypeVar("T")
ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; each wait is about twice the one before
LONGEST_ASKED = 310.0  # seconds that a server may ask for; the hub counts requests of five minutes
REST = 60.0  # seconds for which a host that failed is asked only once
CONNECTION = "connection"  # the reason of a skip

_failed: dict[str, float] = {}  # when all attempts to reach a host failed last
_told: dict[str, float] = {}  # until when a host wants to be left alone, as was said


class Transient(Exception):
    """What may succeed a moment later; ``wait`` is how many seconds the server asked for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def patiently(action: Callable[[], T], *, host: str, address: str, attempts: int = ATTEMPTS) -> T:
    """Carry out an action, again if it raises `Transient`.

    Parameters
    ----------
    attempts
        How often at most; once for a host that failed a moment ago.

    Raises
    ------
    RankscopeError
        With the reason ``connection``, if it never succeeds.
    """
    is_failing = time.monotonic() - _failed.get(host, -REST) < REST
    attempts = 1 if is_failing else attempts
    for attempt in range(attempts):
        try:
            result = action()
        except Transient as error:
            if attempt + 1 < attempts and (error.wait or 0.0) <= LONGEST_ASKED:
                _pause(_wait(attempt, error.wait), host)
                continue
            _failed[host] = time.monotonic()
            tried = "it did not answer before either" if is_failing else f"attempts: {attempt + 1}"
            raise RankscopeError(
                f"could not be fetched ({error}; {tried}): run it again",
                path=address,
                reason=CONNECTION,
            ) from None
        _failed.pop(host, None)
        return result
    raise AssertionError("unreachable")


def _wait(attempt: int, asked: float | None) -> float:
    wait: float = FIRST_WAIT * 2**attempt * random.uniform(0.7, 1.3)
    return max(min(wait, LONGEST_WAIT), asked or 0.0)


def _pause(seconds: float, host: str) -> None:
    """Wait; a long wait is said once for all that wait for the same host."""
    until = time.monotonic() + seconds
    if seconds > LONGEST_WAIT and until > _told.get(host, 0.0) + LONGEST_WAIT:
        _told[host] = until
        message = f"{printable(host)} asks for a pause of {seconds:.0f} seconds: waiting"
        warnings.warn(RankscopeWarning(message), stacklevel=4)
    time.sleep(seconds)
