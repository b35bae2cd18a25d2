"""JSON files that lie beside weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankscope.checkpoints.manifest import check_content
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError

MAX_BYTES = 64 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one.

    Raises
    ------
    RankscopeError
        If the file is not a JSON object or implausibly large.
    """
    if not path.exists():
        return {}
    with open_regular(path) as (_, size):
        if size > MAX_BYTES:
            raise RankscopeError(f"has {size} bytes, too many for a JSON file", path=path)
    try:
        content = path.read_bytes()
        check_content(path, content)
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise RankscopeError(f"is not valid JSON ({error})", path=path) from error
    if not isinstance(found, dict):
        raise RankscopeError("holds no JSON object", path=path)
    return found
