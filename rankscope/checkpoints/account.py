"""The account of a checkpoint: every tensor in its files has exactly one class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rankscope.checkpoints.contents import Accounted, Class, Parameter, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.regions import Part
from rankscope.checkpoints.tensors import StoredTensor, Tensor

NO_RULE = "no rule says what it is: it is not measured"
UNREADABLE = "unreadable"  # reason of a skip of a tensor whose elements cannot be read
Key = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Classed:
    """A tensor with its class and the reason; its stored parts have the same class."""

    tensor: Tensor
    kind: Class
    reason: str


@dataclass(frozen=True)
class Rest:
    """What one stage leaves for the next, by plain name, and the classes of the other tensors."""

    tensors: dict[str, Tensor]
    classed: tuple[Classed, ...] = ()
    skips: tuple[Skip, ...] = ()


def account_of(
    stored: Iterable[Tensor],
    classed: Iterable[Classed],
    parameters: Iterable[Parameter],
    skips: Iterable[Skip],
) -> tuple[tuple[Accounted, ...], tuple[Skip, ...]]:
    """Find the class of every stored tensor.

    Parameters
    ----------
    stored
        Every tensor in the files, as stored.
    classed
        Tensors that are not measured; the first entry of a tensor counts.
    parameters
        What is measured. A tensor that one of these reads is a matrix, or part of one.
    skips
        A tensor that one of these names, and that nothing else accounts for, is not understood.

    Returns
    -------
    The account, in the order of ``stored``; and a skip for every tensor that nothing accounts for,
    so that no tensor disappears silently.
    """
    skips = tuple(skips)
    classes = _measured(parameters)
    for known in reversed([*classed]):
        classes |= dict.fromkeys(map(_key, roots(known.tensor)), (known.kind, known.reason))
    named = {skip.tensor: skip.message for skip in skips if skip.tensor}
    account: dict[Key, Accounted] = {}
    unnamed = []
    for tensor in stored:
        key = _key(tensor)
        if key in account:
            continue
        if key in classes:
            kind, reason = classes[key]
        else:
            message = _message(tensor.name, named)
            if message is None:
                unnamed.append(Skip(tensor.paths[0], tensor.name, "not-understood", NO_RULE))
            kind, reason = "not understood", message or NO_RULE
        account[key] = Accounted(
            tensor.paths[0], tensor.name, tensor.dtype, tensor.shape, kind, reason
        )
    for skip in skips:  # of tensors whose shape and format are unknown
        if skip.reason == UNREADABLE:
            one = Accounted(skip.path, skip.tensor, "", (), "not understood", skip.message)
            account.setdefault(((skip.path,), skip.tensor), one)
    return tuple(account.values()), tuple(unnamed)


def roots(tensor: Tensor) -> tuple[Tensor, ...]:
    """The stored tensors that a tensor is made of: the whole of a part, the parts of a product."""
    if isinstance(tensor, StoredTensor):
        return (tensor,)
    parts = (tensor.whole,) if isinstance(tensor, Part) else getattr(tensor, "parts", ())
    return tuple(root for part in parts for root in roots(part)) or (tensor,)


def _measured(parameters: Iterable[Parameter]) -> dict[Key, tuple[Class, str]]:
    """Class of every stored tensor that a parameter reads.

    A tensor that holds several parameters is a matrix too, with all of their roles.
    """
    roles: dict[Key, dict[str, None]] = {}
    parts: dict[Key, str] = {}
    for parameter in parameters:
        if parameter.tensor is not None:
            stored = roots(parameter.tensor)
            for root in stored:
                if len(stored) == 1:
                    roles.setdefault(_key(root), {})[parameter.role] = None
                else:
                    parts.setdefault(_key(root), parameter.name)
        adapter = parameter.adapter
        for factor in () if adapter is None else adapter.tensors:
            for root in roots(factor):
                parts.setdefault(_key(root), f"the adapter of {parameter.name}")
    classes: dict[Key, tuple[Class, str]] = {key: ("part of", name) for key, name in parts.items()}
    return classes | {key: ("matrix", ", ".join(names)) for key, names in roles.items()}


def _message(name: str, named: Mapping[str, str]) -> str | None:
    """The message of the skip of a tensor, which may name its module instead; None without one."""
    plain = plain_name(name)
    for candidate in (name, plain, plain.removesuffix(".weight")):
        if candidate in named:
            return named[candidate]
    return None


def _key(tensor: Tensor) -> Key:
    return tensor.paths, tensor.name
