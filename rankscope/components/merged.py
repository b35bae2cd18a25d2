"""What a run merged into its weights: the last merge, and the sum of all merges so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.families.parameters import deltas_alone
from rankscope.checkpoints.families.recognition import adapted_family
from rankscope.checkpoints.merges import Merge
from rankscope.components.component import Component, component_of, misfit
from rankscope.components.recipes import Misfit, Products


def last_merge(merges: Sequence[Merge], contents: Contents | None) -> Iterator[Component]:
    """What the last of these merges added to each weight; names as in its checkpoint's family."""
    for parameter in _merged(merges[-1], contents).values():
        if parameter.adapter is not None:
            recipe = _misfit([parameter], contents) or Products((parameter.adapter,))
            component = component_of("merge", parameter, recipe)
            before = [merge.step for merge in merges[:-1] if parameter.module in merge.adapters]
            yield component._replace(
                since=before[-1] if before else None, restarts=0, window="cycle"
            )


def merged_total(merges: Sequence[Merge], contents: Contents | None) -> Iterator[Component]:
    """What these merges together added to each weight that the last one changed."""
    merged = [_merged(merge, contents) for merge in merges]
    for name, parameter in merged[-1].items():
        changes = [changed[name] for changed in merged if name in changed]
        known = tuple(change.adapter for change in changes if change.adapter is not None)
        recipe = _misfit(changes, contents) or Products(known)
        yield component_of("merged_total", parameter, recipe)


def _misfit(changes: Sequence[Parameter], contents: Contents | None) -> Misfit | None:
    """The first of a weight's changes that is not of its shape; None if all are."""
    held = None if contents is None else contents.parameters.get(changes[0].name)
    shape = changes[0].shape if held is None or held.tensor is None else held.tensor.shape
    for change in changes:
        if change.shape != shape:
            message = f"adds {list(change.shape)} to a weight of {list(shape)}"
            return misfit(change, "adapter-misfit", message)
    return None


def _merged(merge: Merge, contents: Contents | None) -> Mapping[str, Parameter]:
    """What a merge changed, by name, identified as in a checkpoint of the run."""
    if contents is not None and contents.of_deltas is not None:
        return contents.of_deltas(merge.adapters)
    shapes = {module: adapter.shape for module, adapter in merge.adapters.items()}
    return deltas_alone(merge.adapters, family=adapted_family(shapes))
