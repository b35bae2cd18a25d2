"""Published measurements to compare with: today those of one study, `weiss2025`."""

from __future__ import annotations

from rankscope.published.weiss import Model, Scale, Table, weiss2025

__all__ = ["Model", "Scale", "Table", "weiss2025"]
