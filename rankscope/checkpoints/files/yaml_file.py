"""YAML files that lie beside weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.json_file import MAX_BYTES
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; an absent file is an empty one.

    Raises
    ------
    RankscopeError
        If the file is not a YAML mapping of plain values, or implausibly large.
    """
    if not path.exists():
        return {}
    import yaml  # here, since most checkpoints have none

    with open_regular(path) as (_, size):
        if size > MAX_BYTES:
            raise RankscopeError(f"has {size} bytes, too many for a YAML file", path=path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise RankscopeError(f"is not valid YAML ({reason})", path=path) from None
    if not isinstance(found, dict):
        raise RankscopeError("holds no YAML mapping", path=path)
    return found
