"""JSON and YAML files beside weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.manifest import check_content
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import DAMAGE, RankscopeError, printable

MAX_JSON, MAX_YAML = 64 * 2**20, 2**20  # bytes; YAML is parsed at about 100 kB a second


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one.

    Raises
    ------
    RankscopeError
        If the file is not a JSON object or is implausibly large.
    """
    content = _content(path, "JSON", MAX_JSON)
    if content is None:
        return {}
    check_content(path, content)
    try:
        entries = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise RankscopeError(f"is not valid JSON ({_first_line(error)})", path=path) from error
    if not isinstance(entries, dict):
        raise RankscopeError("does not hold a JSON object", path=path)
    return entries


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; an absent file is an empty one.

    Raises
    ------
    RankscopeError
        If the file is not a YAML mapping of plain values or is implausibly large.
    """
    content = _content(path, "YAML", MAX_YAML)
    if content is None:
        return {}
    import yaml  # here, since most checkpoints have none

    try:
        entries = yaml.safe_load(content.decode())
    except (yaml.YAMLError, *DAMAGE) as error:
        raise RankscopeError(f"is not valid YAML ({_first_line(error)})", path=path) from None
    if not isinstance(entries, dict):
        raise RankscopeError("does not hold a YAML mapping", path=path)
    return entries


def config_beside(path: Path) -> Mapping[str, Any]:
    """Content of the ``config.json`` in the same folder; empty if there is none."""
    return read_json(path.parent / "config.json")


def _content(path: Path, kind: str, limit: int) -> bytes | None:
    if not path.exists():
        return None
    with open_regular(path) as (file, size):
        if size > limit:
            raise RankscopeError(f"has {size} bytes, too many for a {kind} file", path=path)
        return file.read()


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0])
