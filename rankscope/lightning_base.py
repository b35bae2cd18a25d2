"""What a callback of Lightning's Trainer is derived from, under either name of the package."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def callback_class() -> Any:
    """Lightning's ``Callback``, or ``object`` where it is not installed."""
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(package).Callback
        except ModuleNotFoundError:
            continue
    return object  # nothing to be called by
