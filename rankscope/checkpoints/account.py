"""The account of a checkpoint: every tensor of its files, in exactly one class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rankscope.checkpoints.contents import Accounted, Class, Parameter, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.tensors import Part, Tensor

NO_RULE = "no rule says what it is: it is not measured"


@dataclass(frozen=True)
class Classed:
    """A stored tensor whose class is known, and why it is in it."""

    tensor: Tensor
    kind: Class
    reason: str


def account_of(
    stored: Iterable[Tensor],
    classed: Iterable[Classed],
    parameters: Iterable[Parameter],
    skips: Iterable[Skip],
) -> tuple[tuple[Accounted, ...], tuple[Skip, ...]]:
    """Put every stored tensor into its class, by what became of it.

    Parameters
    ----------
    stored
        Every tensor of the files, as stored.
    classed
        Those whose class was known without making a parameter of them; the first entry counts.
    parameters
        What is measured. A tensor that one of them reads is a matrix, or part of one.
    skips
        A tensor that one of these names, and that nothing else accounts for, is not understood.

    Returns
    -------
    The account, in the order of ``stored``; and a skip for every tensor that nothing accounts for,
    so that no tensor vanishes without a line.
    """
    classes: dict[tuple[tuple[str, ...], str], tuple[Class, str]] = {}
    for one in classed:
        classes.setdefault(_key(one.tensor), (one.kind, one.reason))
    for parameter in parameters:
        for tensor, kind, reason in _uses(parameter):
            classes.setdefault(_key(tensor), (kind, reason))
    named = {skip.tensor: skip.message for skip in skips if skip.tensor}
    account, unnamed, seen = [], [], set()
    for tensor in stored:
        key = _key(tensor)
        if key in seen:
            continue
        seen.add(key)
        message = named.get(tensor.name) or named.get(
            plain_name(tensor.name).removesuffix(".weight")
        )
        if key not in classes and message is None:
            unnamed.append(Skip(tensor.paths[0], tensor.name, "not-understood", NO_RULE))
        kind, reason = classes.get(key, ("not understood", message or NO_RULE))
        account.append(
            Accounted(tensor.paths[0], tensor.name, tensor.dtype, tensor.shape, kind, reason)
        )
    return tuple(account), tuple(unnamed)


def roots(tensor: Tensor) -> Iterator[Tensor]:
    """Stored tensors that a tensor is made of: the whole of a part, the parts of a product."""
    parts = (tensor.whole,) if isinstance(tensor, Part) else getattr(tensor, "parts", ())
    if not parts:
        yield tensor
    for part in parts:
        yield from roots(part)


def _uses(parameter: Parameter) -> Iterator[tuple[Tensor, Class, str]]:
    """Stored tensors that a parameter reads, and as what."""
    name = parameter.name
    if parameter.tensor is not None:
        found = list(roots(parameter.tensor))
        if len(found) == 1:
            yield found[0], "matrix", parameter.role
        else:
            yield from ((one, "part of", name) for one in found)
    if parameter.adapter is not None:
        for factor in parameter.adapter.tensors:
            yield from ((one, "part of", f"the adapter of {name}") for one in roots(factor))


def _names(tensor: str) -> Iterator[str]:
    """Names by which a skip may mean a tensor: its own, and those of the modules it is in."""
    for name in dict.fromkeys((tensor, plain_name(tensor))):
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(len(parts), 0, -1))


def _key(tensor: Tensor) -> tuple[tuple[str, ...], str]:
    return tensor.paths, tensor.name
