"""JSON and YAML files beside weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.limits import (
    MAX_DEPTH,
    MAX_JSON,
    MAX_NAME,
    MAX_YAML,
    check_values,
    over_limit,
)
from rankscope.checkpoints.manifest import check_content
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import DAMAGE, RankscopeError, printable

MERGE, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"  # tags of YAML


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
    check_values(content, "it", path=path)
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
    check_values(content, "it", path=path, is_yaml=True)
    import yaml  # here, since most checkpoints have none

    try:
        entries = _parsed_yaml(content.decode())
    except RankscopeError as error:
        raise RankscopeError(error.message, path=path, reason=error.reason) from None
    except (yaml.YAMLError, *DAMAGE) as error:
        raise RankscopeError(f"is not valid YAML ({_first_line(error)})", path=path) from None
    if not isinstance(entries, dict):
        raise RankscopeError("does not hold a YAML mapping", path=path)
    return entries


def _parsed_yaml(text: str) -> Any:
    """Parse YAML of plain values, in time and memory that its length bounds.

    Merges (``<<``) multiply the entries at every level, and are refused; numbers can be so long, or
    chosen so that all have one hash, that they take minutes: keys and long scalars stay text. For
    every token the parser looks at all open brackets, whose number is therefore limited.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
            if self.flow_level >= MAX_DEPTH:
                raise over_limit(f"is nested more than {MAX_DEPTH} levels deep")
            super().fetch_flow_collection_start(kind)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            if any(key.tag == MERGE for key, _ in node.value):
                raise ValueError("it merges mappings (<<), which is not read")
            return {self._key(key): self.construct_object(value, deep) for key, value in node.value}

        def _key(self, node: yaml.Node) -> str:
            if not isinstance(node, yaml.ScalarNode):
                raise ValueError("it has a key that is not text")
            return str(node.value)

        def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
            if kind is yaml.ScalarNode and value is not None and len(value) > MAX_NAME:
                return TEXT
            return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    return yaml.load(text, Loader)


def config_beside(path: Path) -> Mapping[str, Any]:
    """Content of the ``config.json`` in the same folder; empty if there is none."""
    return read_json(path.parent / "config.json")


def _content(path: Path, kind: str, limit: int) -> bytes | None:
    if not path.exists():
        return None
    with open_regular(path) as (file, size):
        if size > limit:
            message = f"has {size} bytes, too many for a {kind} file"
            raise RankscopeError(message, path=path, reason="too-large")
        return file.read()


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0])
