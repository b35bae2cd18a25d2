"""Names of modules and weights as adapters and trainers write them, and as the model has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from math import prod

from rankscope.checkpoints.contents import Delta
from rankscope.checkpoints.families.family_files import families
from rankscope.checkpoints.families.names import parts_in
from rankscope.checkpoints.tensors import Tensor

FLAT_STARTS = ("lora_", "lycoris_")  # of the parts of adapters, and of all that `FLAT` matches
FLAT = re.compile(r"(?:lora|lycoris)_(?P<model>unet|te\d*|transformer|prior|dit)_(?P<path>\w+)")
INDEX = re.compile(r"_(\d+)(?=_|$)")
# Tensors beside which a weight is not the base plus the delta: a code, and words.
APART = {
    "dora_scale": ("dora", "its rows are rescaled as in LyCORIS: only the delta is read"),
    "trainable_tokens_delta": ("trainable-tokens", "some of its rows have been replaced"),
}
SAVED = re.compile(r"\.modules_to_save(?:\.[^.]+)?(?=\.)")
REPLACED, HELD = ".original_module.", ".base_layer."
DEEPEST = 3  # most parts of a path between a module and the weight that its adapter wraps


def model_path(module: str) -> str:
    """Path of a module in the model, without the parts that adapters put into it."""
    plain = module.replace(".processor.", ".")
    holder, found, number = plain.rpartition(".parametrizations.weight.")
    return holder if found and number.isdecimal() else plain


def unflattened(module: str) -> str:
    """Path of a module with dots, if a trainer such as kohya's replaced them by underscores.

    ``lora_unet_down_blocks_0_attn1_to_q`` becomes ``unet.down_blocks.0.attn1.to_q``. Numbers are
    between dots, and so are projections that a family knows. The other underscores stay, since
    nothing says which of them were dots; so does the one after a number of the model (``te2``). An
    error costs a layer or a role; the matrix is the same.
    """
    flat = FLAT.fullmatch(module)
    if flat is None:
        return module
    path = flat["path"]
    known = max((end for end in _endings() if _ends(path, end)), key=len, default="")
    kept = INDEX.sub(r".\1.", path.removesuffix(known.replace(".", "_"))).replace("..", ".")
    kept = re.sub(r"\.(\d+)\._", r".\1.", kept).strip("._")
    path = ".".join(filter(None, (kept, known)))
    model = flat["model"]
    return f"{model}_{path}" if model[-1].isdigit() else f"{model}.{path}"


@cache
def _endings() -> frozenset[str]:
    """Ends of paths that have a role in any family, without patterns."""
    return frozenset(_written(end for f in families().values() for end in (*f.roles, *f.fused)))


def _written(ends: Iterable[str]) -> Iterable[str]:
    return (end for end in ends if "*" not in end and not end.isdecimal())


def _ends(text: str, end: str) -> bool:
    flat = end.replace(".", "_")
    return text == flat or text.endswith(f"_{flat}")


def odd_ones(tensors: Mapping[str, Tensor], has_factors: bool) -> dict[str, tuple[str, str, str]]:
    """Tensors that show that a weight is not base plus delta, or that nothing explains.

    Returns
    -------
    By name: the module concerned, which is empty for an unexplained tensor; a code; words.
    """
    found = {}
    if not any(part.startswith((*APART, *FLAT_STARTS)) for part in parts_in(tensors)):
        return {}
    for name, tensor in tensors.items():
        end = next((end for end in APART if f".{end}" in name), None)
        if end is not None:
            module = name.partition(f".{end}")[0].removesuffix(".token_adapter")
            found[name] = (module, *APART[end])
        elif is_matrix(tensor) and _is_adapters(name, has_factors):
            found[name] = ("", "not-an-adapter", "is not a factor of a known kind")
    return found


def _is_adapters(name: str, has_factors: bool) -> bool:
    """Whether a name is that of a part of an adapter of any kind."""
    of_lora = has_factors and ".lora_" in name and not name.endswith("bias")
    return of_lora or FLAT.fullmatch(name.partition(".")[0]) is not None


def replaced(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of weights that a trained copy replaces."""
    return (name for name in list(tensors) if REPLACED in name)


def unwrapped(tensors: Mapping[str, Tensor], adapters: Mapping[str, Delta]) -> dict[str, Tensor]:
    """The tensors under the names that they have in the model without adapters.

    PEFT's names for the wrapped weight are known. Otherwise, the only matrix in a module with an
    adapter is its weight if it has the shape of the delta. An error: the delta is added to another
    weight of the same shape in the same module.
    """
    rest = {SAVED.sub("", name).replace(HELD, "."): tensor for name, tensor in tensors.items()}
    for module, delta in adapters.items():
        if f"{module}.weight" in rest:
            continue
        below = [n for n in rest if n.startswith(f"{module}.") and is_matrix(rest[n])]
        if len(below) == 1 and below[0].count(".") <= module.count(".") + DEEPEST:
            shape = rest[below[0]].shape
            if (shape[0], prod(shape[1:])) in (delta.shape, delta.shape[::-1]):
                rest[f"{module}.weight"] = rest.pop(below[0])
    return rest


def is_matrix(tensor: Tensor) -> bool:
    """Whether a tensor has at least two axes above 1."""
    return sum(size != 1 for size in tensor.shape) > 1
