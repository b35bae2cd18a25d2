"""`NormTable`: which norms are between the maps of an attention. Read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from rankscope.checkpoints.families.factor_tables import is_number
from rankscope.errors import RankscopeError

NormKind = Literal["rms", "layer"]
Normalised = Literal["q", "k", "v", "q_a", "kv_a", "o"]
KINDS: tuple[NormKind, ...] = get_args(NormKind)
NORMALISED: tuple[Normalised, ...] = get_args(Normalised)

Fault = Callable[[str], RankscopeError]


@dataclass(frozen=True)
class NormTable:
    """The norms of an attention that compute alike; see ``docs/checkpoints.md``.

    Attributes
    ----------
    beside
        Role of a map → the module with the gain, beside that of the map. Its outputs are normalised
        there; of o, its inputs.
    kind
        ``rms``: divided by the root of the mean square. ``layer``: the mean is subtracted first.
    offset
        What the model adds to the stored gain: 1 in Gemma, and 0 in most.
    stated
        The entry of the config without which there is no norm; empty if there always is one.
    model_types
        Values of ``model_type`` in the config; empty for all models of a family.
    """

    beside: Mapping[str, str]
    kind: NormKind = "rms"
    offset: float = 0.0
    stated: str = ""
    model_types: tuple[str, ...] = ()

    def applies(self, role: str, model_types: Collection[str], config: Mapping[str, Any]) -> bool:
        """Whether a model of these types and this config has such a norm at a map of this role."""
        return (
            role in self.beside
            and (not self.model_types or not {*self.model_types}.isdisjoint(model_types))
            and (not self.stated or bool(config.get(self.stated)))
        )


@cache
def known_norms() -> tuple[NormTable, ...]:
    """The norms that are known by the type of a model."""
    text = (resources.files("rankscope.checkpoints.families") / "norms.toml").read_text("utf-8")
    return parsed_norms(tomllib.loads(text)["norms"], _fault)


def parsed_norms(entries: Any, fault: Fault) -> tuple[NormTable, ...]:
    """Tables of the entry ``norms`` of a TOML file.

    Raises
    ------
    RankscopeError
        As ``fault`` makes it, if an entry is not a table of norms.
    """
    if not isinstance(entries, list):
        raise fault("norms must be a list of tables, each headed [[norms]]")
    return tuple(_parsed(entry, fault) for entry in entries)


def _parsed(entry: Any, fault: Fault) -> NormTable:
    if not isinstance(entry, Mapping) or not entry.keys() & {*NORMALISED}:
        raise fault(f"every table of norms needs one of {', '.join(NORMALISED)}")
    unknown = entry.keys() - {*NORMALISED, "kind", "offset", "stated", "model_types"}
    if unknown:
        raise fault(f"norms have unknown entries: {', '.join(sorted(unknown))}")
    beside: dict[str, str] = {role: entry[role] for role in NORMALISED if role in entry}
    for key, value in beside.items():
        if not isinstance(value, str) or not value:
            raise fault(f"norms: {key} must be text, the module of the norm")
    if not isinstance(entry.get("stated", ""), str):
        raise fault("norms: stated must be text, an entry of the config")
    if entry.get("kind") not in KINDS:
        raise fault(f"norms: kind must be one of {', '.join(KINDS)}")
    if not is_number(entry.get("offset", 0)):
        raise fault("norms: offset must be a number")
    types = entry.get("model_types", [])
    if not isinstance(types, list) or not all(isinstance(one, str) for one in types):
        raise fault("norms: model_types must be a list of text")
    return NormTable(
        beside,
        kind=entry["kind"],
        offset=float(entry.get("offset", 0)),
        stated=entry.get("stated", ""),
        model_types=tuple(types),
    )


def _fault(message: str) -> RankscopeError:
    return RankscopeError(message, path="norms.toml")
