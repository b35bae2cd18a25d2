"""Trying again what failed for the moment, such as a connection that was cut."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from rankscope.errors import RankscopeError

T = TypeVar("T")
ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; each wait is about twice the one before
REST = 60.0  # seconds for which a host that failed is asked only once
CONNECTION = "connection"  # the reason of a skip

_failed: dict[str, float] = {}  # when all attempts to reach a host failed last


class Transient(Exception):
    """What may succeed a moment later; ``wait`` is how many seconds the server asked for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def patiently(action: Callable[[], T], *, host: str, address: str) -> T:
    """Carry out an action, again if it raises `Transient`.

    Raises
    ------
    RankscopeError
        With the reason ``connection``, if it never succeeds.
    """
    is_failing = time.monotonic() - _failed.get(host, -REST) < REST
    attempts = 1 if is_failing else ATTEMPTS
    for attempt in range(attempts):
        try:
            result = action()
        except Transient as error:
            if attempt + 1 < attempts:
                time.sleep(_wait(attempt, error.wait))
                continue
            _failed[host] = time.monotonic()
            tried = f"{attempts} attempts" if attempts > 1 else "it did not answer before either"
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
    return min(max(wait, asked or 0.0), LONGEST_WAIT)
