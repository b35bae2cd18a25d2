"""Calls to transformers, peft and tokenizers: without their output, and with one-line errors."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rankscope.errors import RankscopeError


def require(package: str) -> None:
    """Raise `RankscopeError` that says what to install where a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise RankscopeError(
            f"scoring text with this checkpoint needs {package}: "
            'pip install "rankscope[transformers]"'
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers and peft, and restore their settings afterwards.

    One of their warnings becomes an error: that some weights of an adapter are missing, which peft
    reports in no other way.
    """
    from transformers.utils import logging as library_logging

    transformers_logging: Any = library_logging  # not all of it has types
    verbosity = transformers_logging.get_verbosity()
    has_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    if has_bars:
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*missing adapter keys")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bars:
            transformers_logging.enable_progress_bar()
