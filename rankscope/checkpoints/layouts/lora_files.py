"""The files of a PEFT LoRA adapter: its factors, and what else is saved with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Adapter, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.weights_file import open_weights_file
from rankscope.checkpoints.layouts.lora_config import (
    change_of_base,
    is_stack,
    read_config,
    scale_of,
)
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import FLOATS, Part, Tensor, Window
from rankscope.errors import RankscopeError

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# The name of the adapter is in a state dict, not in the files that PEFT writes.
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<factor>[AB])(?:\.(?P<adapter>[^.]+))?")
# Tensors beside which a weight is not the base's plus B·A.
APART = {
    "lora_magnitude_vector": ("dora", "DoRA rescales the weight: only B·A is read"),
    "trainable_tokens_delta": ("trainable-tokens", "some of its rows have been replaced"),
}
SAVED = re.compile(r"\.modules_to_save(\.[^.]+)?(?=\.)|\.base_layer(?=\.)")


@dataclass(frozen=True)
class Lora:
    """What the files of an adapter hold.

    Attributes
    ----------
    adapters
        By the module whose weight each changes.
    weights
        Tensors that take the place of the base model's, by name.
    apart
        Modules whose weight in the model's function is not the base's plus the delta.
    """

    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()
    skips: tuple[Skip, ...] = ()


NONE = Lora()


def read_lora(folder: Path, options: Options) -> Lora:
    """Read the headers of an adapter.

    Raises
    ------
    RankscopeError
        If the adapter is not a LoRA, or its weights are missing or damaged.
    """
    config = read_config(folder)
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise RankscopeError(f"has no {WEIGHTS[0]} and no {WEIGHTS[1]}", path=folder)
    sorting = _Sorting(str(path))
    for name, tensor in open_weights_file(path, trust=options.trust_pickle).items():
        sorting.put(plain_name(name), tensor)
    adapters = sorting.adapters(config)
    return Lora(adapters, sorting.weights, frozenset(sorting.apart), tuple(sorting.skips))


@dataclass
class _Sorting:
    """The tensors of an adapter's file, each put where it belongs by its name."""

    path: str
    factors: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)
    skips: list[Skip] = field(default_factory=list)

    def put(self, name: str, tensor: Tensor) -> None:
        if match := FACTOR.fullmatch(name):
            self._factor(match, match["factor"], tensor)
        elif match := EMBEDDING.fullmatch(name):
            # Stored for the embedding turned round: (vocabulary, r) is its B, and (r, width) its A.
            self._factor(match, "BA"["AB".index(match["factor"])], _turned(tensor))
        elif kind := next((kind for kind in APART if f".{kind}" in name), None):
            module = name.partition(f".{kind}")[0].removesuffix(".token_adapter")
            self._leave_base(module, *APART[kind])
        elif ".lora_" in name and not name.endswith(".bias"):
            self.skips.append(Skip(self.path, name, "not-an-adapter", "is no plain LoRA factor"))
        elif ".original_module." not in name:  # which `modules_to_save` replaces
            self.weights[SAVED.sub("", name)] = tensor

    def _factor(self, match: re.Match[str], factor: str, tensor: Tensor) -> None:
        modules = self.factors.setdefault(match["adapter"] or "", {})
        modules.setdefault(match["module"], {})[factor] = tensor

    def _leave_base(self, module: str, reason: str, message: str) -> None:
        self.apart.add(module)
        self.skips.append(Skip(self.path, module, reason, message))

    def adapters(self, config: Mapping[str, Any]) -> dict[str, Adapter]:
        """The adapters whose factors fit each other; notes what becomes of the others."""
        names = sorted(self.factors, key=lambda name: (name not in ("", "default"), name))
        for other in names[1:]:
            message = f"is left out: {names[0] or 'the one without a name'} is read"
            self.skips.append(Skip(self.path, other, "other-adapter", message))
        found = {}
        for module, pair in self.factors[names[0]].items() if names else ():
            adapter = self._adapter(module, pair, config)
            if adapter is not None:
                found[module] = adapter
        return found

    def _adapter(
        self, module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any]
    ) -> Adapter | None:
        if fault := _fault(pair):
            self.skips.append(Skip(self.path, module, "adapter-incomplete", fault))
            return None
        a, b = _matrix(pair["A"]), _matrix(pair["B"])
        rank = a.shape[0]
        if is_stack(config, module, rank=rank):
            message = "holds the factors of several experts in one: they are not told apart"
            self._leave_base(module.replace(".base_layer", ""), "target-parameters", message)
            return None
        if change := change_of_base(config):
            self._leave_base(module, *change)
        return Adapter(a, b, scale_of(config, module, rank=rank))


def _turned(tensor: Tensor) -> Tensor:
    """A matrix with rows for columns; anything else as it is."""
    return Part(tensor, Window.of(tensor.shape).transposed()) if len(tensor.shape) == 2 else tensor


def _matrix(tensor: Tensor) -> Tensor:
    """A factor as a matrix: of a convolution, whose A has the kernel, with a row each output."""
    if len(tensor.shape) == 2:
        return tensor
    return Part(tensor, Window.of((tensor.shape[0], math.prod(tensor.shape[1:]))))


def _fault(pair: Mapping[str, Tensor]) -> str:
    """What is wrong with the two factors of a module, if anything."""
    for missing, there in (("A", "B"), ("B", "A")):
        if missing not in pair:
            return f"has lora_{there} but no lora_{missing}"
    a, b = pair["A"].shape, pair["B"].shape
    if 0 in (*a, *b):
        return "a factor is empty, as when it is saved while its parts are on several devices"
    if min(len(a), len(b)) < 2 or a[0] != b[1] or math.prod(b[2:]) != 1:
        return f"its factors do not fit: lora_A is {list(a)}, lora_B is {list(b)}"
    other = next((factor.dtype for factor in pair.values() if factor.dtype not in FLOATS), None)
    return "" if other is None else f"is stored as {other}, which is no plain factor"
