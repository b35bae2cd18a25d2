"""Values of options, converted without pydantic where they are plain.

Recent versions of typer build a pydantic adapter for every parameter. Loading it takes longer than
all that a call with nothing new to compute has to do. So what is certainly right is converted here,
and everything else, all errors included, is left to typer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

WHOLE = re.compile(r"-?[0-9]+", re.ASCII)


class NotPlainError(Exception):
    """A value that typer has to look at."""


def spare_adapters(parameter: Any) -> None:
    """Let a parameter of typer convert plain values by itself; older versions do so anyway."""
    usual: Callable[[], Any] | None = getattr(parameter, "get_runtime_param", None)
    if usual is not None:
        parameter.get_runtime_param = lambda: _Plain(usual)


class _Plain:
    """Converts the values of one parameter as typer's own converter does."""

    def __init__(self, usual: Callable[[], Any]) -> None:
        self._usual = usual

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command takes it."""
        described = param.type_descriptor
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        try:
            return plain(value, described.annotation, described.parameter_info)
        except NotPlainError:
            return self._usual().coerce(value, param=param, ctx=ctx)


def plain(value: Any, annotation: Any, info: Any) -> Any:
    """A value of a parameter of this type.

    Parameters
    ----------
    info
        What typer knows of the parameter: its limits.

    Raises
    ------
    NotPlainError
        If it may be wrong, or is of a type that is not plain.
    """
    if get_origin(annotation) is list and isinstance(value, list | tuple):
        return [plain(one, get_args(annotation)[0], info) for one in value]
    is_text = isinstance(value, str) and info.parser is None
    if get_origin(annotation) is Literal and is_text and value in get_args(annotation):
        return value
    if annotation is str and is_text:
        return value
    is_number = type(value) is int and info.parser is None
    if annotation is int and (is_number or (is_text and WHOLE.fullmatch(value))):
        number = int(value)
        if (info.min is None or number >= info.min) and (info.max is None or number <= info.max):
            return number
    if annotation is Path and (is_text or isinstance(value, Path)) and _is_free(value, info):
        return Path(value)
    raise NotPlainError


def _is_free(path: str | Path, info: Any) -> bool:
    """Whether nothing is required of a path but that it may be read if it is there."""
    if info.exists or info.writable or info.resolve_path or not (info.file_okay and info.dir_okay):
        return False
    return not info.readable or not Path(path).exists() or os.access(path, os.R_OK)
