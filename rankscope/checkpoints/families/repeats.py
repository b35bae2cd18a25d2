"""Blocks of a model that repeat one another, so that a rule is asked once for all of them.

Most layers of a model hold the same tensors under the same names, but for the number of the layer.
Two such blocks could change places and nothing else would: so whatever a rule makes of a tensor by
names, shapes and formats, near and far, it makes of the same tensor in the other block too, unless
the rule looks at the number itself. Which layer it is, what the config states for that layer, what
counts the blocks before it and what names another tensor are asked for each tensor. A block with a
weight of its own is a map in a list of maps, which may be factors of one another, and stands for
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from rankscope.checkpoints.families.names import block_of

OF_A_MAP = ("", ".weight")  # ends of names behind the number of a block that is one


def first_alike(
    held: Mapping[str, Hashable], told_apart: Callable[[str], bool] = lambda _: False
) -> dict[str, str]:
    """For each name, the same one in the first block that holds the same.

    Parameters
    ----------
    held
        All that rules know about what has a name, by name.
    told_apart
        Whether a rule may look at this number of a block.

    Returns
    -------
    Every name, in the given order by blocks; outside of blocks, each stands for itself.

    Examples
    --------
    >>> held = {f"layers.{layer}.{name}": 3 for layer in range(3) for name in "qk"}
    >>> first_alike(held | {"layers.2.q": 4})
    {'layers.0.q': 'layers.0.q', 'layers.0.k': 'layers.0.k', 'layers.1.q': 'layers.0.q', \
'layers.1.k': 'layers.0.k', 'layers.2.q': 'layers.2.q', 'layers.2.k': 'layers.2.k'}
    """
    blocks: dict[str, tuple[list[str], list[tuple[str, Hashable]]]] = {}
    block, start = "", ""
    for name, known in held.items():
        if not block or not name.startswith(start):  # one after the other is of the same block
            block = block_of(name)
            start = f"{block}."
        names, inner = blocks.setdefault(block, ([], []))
        names.append(name)
        inner.append((name[len(block) :], known))
    firsts: dict[tuple[str, Hashable], str] = {}
    found: dict[str, str] = {}
    for block, (names, inner) in blocks.items():
        path, _, number = block.rpartition(".")
        is_map = any(rest in OF_A_MAP for rest, _ in inner)
        is_apart = not block or is_map or told_apart(number)
        first = block if is_apart else firsts.setdefault((path, tuple(inner)), block)
        found |= zip(names, blocks[first][0], strict=True)
    return found
