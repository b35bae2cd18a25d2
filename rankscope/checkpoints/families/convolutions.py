"""Convolutions: by name or by shape, and those whose channels have kernels of their own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from rankscope.checkpoints.families.neighbours import Neighbours, Shape, own_part, words
from rankscope.checkpoints.families.path_numbers import numbers_in
from rankscope.checkpoints.series_titles import natural

KERNEL, TINY = 32, 11  # the largest sides of a kernel that is recognised by its shape
# Words that begin like convolutions and are not.
NO_CONVOLUTIONS = ("conve", "convi")
COLOURS = 3
IMAGES, CONV = ("out", "in", "height", "width"), ".conv"  # axes; a module that wraps a convolution
POSITIONAL = {"pos", "position", "positions", "positional"}
# In the names of convolutions with one input per kernel that are not first layers.
CHANNELWISE = {"depthwise", "dw", "dwconv", "dws", "cpe"}
IN_GROUPS = {"grouped", *CHANNELWISE}
ATTENTION = {"attn", "attention"}
# Of maps whose one input is a weight of an attention (Chorowski, 2015) or a place (LambdaNetworks).
ONE_INPUT = {"loc", "location", "lambda"}
MANY = 512  # no block has as many tensors
MOST = 8  # how many numbers before that of a convolution are looked at
SINGLE, GROUPED = "a separate kernel for each channel", "separate kernels for groups of channels"


def why_separate(name: str, shape: Shape, near: Neighbours) -> str:
    """Why no matrix mixes all channels of a convolution; empty if one does or may do."""
    if len(shape) < 3:
        return ""
    if len(shape) == 3 and not (is_convolution(name) or near.has_bias(name, shape[0])):
        return ""
    if shape[1] == 1 and not ONE_INPUT.isdisjoint(words(own_part(name))):
        return ""
    single = (_is_depthwise, _is_behind_its_channels, _is_among_single_kernels)
    if any(rule(name, shape, near) for rule in single):
        return SINGLE
    grouped = (_is_grouped, _is_within_a_bottleneck, _is_behind_single_kernels)
    return GROUPED if any(rule(name, shape, near) for rule in grouped) else ""


def is_convolution(name: str) -> bool:
    """Whether a tensor or its module is called a convolution: ``conv1``, ``dwconv``, ``convs``.

    So is a tensor in such a module under a number or another name.
    """
    *modules, leaf = name.split(".")
    near = [leaf, *[part for part in modules if not part.isdigit()][-2:]]
    said = (word for part in near for word in words(part))
    return any(
        word.rstrip("s").endswith("conv")
        or (word.startswith("conv") and not word.startswith(NO_CONVOLUTIONS))
        for word in said
    )


def is_kernel(sides: tuple[int, ...]) -> bool:
    """Whether axes after outputs and inputs are those of a kernel: small, and equal if not tiny.

    A side that is not tiny must equal another, or have only sides of 1 beside it. An error: stacks
    of stacks of such small matrices are taken for a convolution.
    """
    large = [side for side in sides if side > TINY]
    if len(sides) < 2 or max(sides) > KERNEL or len({*large}) > 1:
        return False
    return len(large) != 1 or math.prod(sides) == large[0]


def _is_depthwise(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether a convolution has a separate kernel for each channel, so that no matrix mixes them.

    Each kernel has one input, but so it does in a first layer on grey images. It counts as
    depthwise if its name says so, if it is added as positions or in an attention, or if its block
    (by the number in its name) has a matrix without a kernel and with as many rows or columns as
    there are channels. A matrix with more rows in the same module counts too, since some of its
    rows may be the inputs, as in Mamba-2; but not if its columns are a multiple of the channels,
    which are then its inputs. The cost of an error: the matrix of a first layer is missing.
    """
    if shape[1] != 1:
        return False
    if CHANNELWISE & {word for part in name.split(".") for word in words(part)}:
        return True
    if _is_beside(POSITIONAL, name, shape, near) or _is_beside(ATTENTION, name, shape, near):
        return True
    channels, parts = shape[0], name.split(".")[:-2]
    module = f"{'.'.join(parts)}."
    blocks = [i for i, part in enumerate(parts) if part.isdigit()]
    return any(
        channels in tensor.shape[:2]
        or (other.startswith(module) and tensor.shape[0] > channels and tensor.shape[1] % channels)
        for end in blocks
        for other, tensor in near.within(".".join(parts[: end + 1]))
        if sum(size > 1 for size in tensor.shape[:2]) == 2 and math.prod(tensor.shape[2:]) == 1
    )


def _is_behind_its_channels(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether a convolution of one input per kernel follows one that has its channels as outputs.

    That is the first one on images of three colours beside it, or one with a smaller number on its
    path: ``conv2`` after ``conv1``, ``stages.1`` after ``stages.0``. Members of an ensemble have
    such numbers too, and then one of the same shape. In a plain list all are alike, so there a map
    that mixes the channels must be beside it; and it must not be the first convolution of the
    model, which may be on grey images. The cost of an error: as above.
    """
    if shape[1] != 1 or shape[0] == 1 or max(shape[2:]) > KERNEL:
        return False
    for number in numbers_in(name):
        rest, around = name[number.end :], number.before.rstrip(".").rpartition(".")[0]
        beside = [(other, one.shape) for other, one in near.within(around) if len(one.shape) > 2]
        if any(one[:2] == (shape[0], COLOURS) for _, one in beside):
            return True
        behind = list(_iter_before(number.before, number.value, near))
        for before in behind:
            is_twin = any(other.endswith(rest) and one == shape for other, one in before)
            if not is_twin and any(shape[0] in one[:2] and one[1] > 1 for _, one in before):
                return True
        next_one = near.shape_of(f"{number.before}{number.value + 1}{rest}")
        if rest == ".weight" and (number.value or next_one == shape):
            is_first = not any(behind) and len(beside) == near.kernels_in_model
            return not is_first and any(
                one[1] == shape[0] and math.prod(one[2:]) == 1
                for other, one in beside
                if other.count(".") == name.count(".")
            )
    return False


def _is_among_single_kernels(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether several square kernels beside it have one input each, so that none is a first layer.

    They are in one list, as those for parts of the channels. Or one beside it has no sides, which
    is a gain for each channel unless both read grey images: so the model must read coloured ones.
    The cost of an error: as above.
    """
    if len(shape) != len(IMAGES) or shape[0] == 1 or not _is_square_kernel(shape):
        return False
    end = f"{CONV}.weight" if name.endswith(f"{CONV}.weight") else ".weight"
    around, _, last = name.removesuffix(end).rpartition(".")
    block = around if last.isdigit() else name.removesuffix(end)
    outer = block.rpartition(".")[0]
    if near.has_colours and outer and near.shapes_within(outer)[*shape[:2], 1, 1]:
        return True
    alike = [near.shape_of(f"{around}.{value}{end}") for value in range(MOST)]
    alike = [one for one in alike if one] if last.isdigit() else []
    return len(alike) > 1 and all(_is_square_kernel(one) for one in alike)


def _is_square_kernel(shape: Shape) -> bool:
    """Whether a shape is that of square kernels of one input each."""
    return shape[1:2] == (1,) and len({*shape[2:]}) == 1 and shape[2] > 1


def _is_within_a_bottleneck(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether it reads fewer channels than the kernels without sides around it pass on.

    One of these has as many outputs as another has inputs, and a kernel between them reads them
    all, or a part of them that has as many channels as it writes. By its name, the first comes
    before the kernel and the other: two that follow a plain kernel and weigh its channels do not.
    One on three colours is before them. The cost of an error: the matrix of a gated bottleneck is
    missing.
    """
    if not 1 < shape[1] < shape[0] or shape[1] == COLOURS or math.prod(shape[2:]) == 1:
        return False
    block = name.removesuffix(".weight").removesuffix(CONV)
    block = block.rpartition(".")[0]
    block = block.rpartition(".")[0] if block.rpartition(".")[2] == "convs" else block
    depth = block.count(".") + bool(block)
    if near.count_within(block) > MANY:
        return False
    beside = [
        (natural(other), one.shape)
        for other, one in near.within(block)
        if len(one.shape) == len(shape) and one.shape != shape
        if other.removesuffix(".weight").removesuffix(CONV).count(".") == depth
    ]
    if any(shape[1] in one[:2] for _, one in beside):
        return False
    flat = sorted(one for one in beside if math.prod(one[1][2:]) == 1)
    pairs = itertools.combinations(flat, 2)
    passed = {a[0] for (first, a), (_, b) in pairs if a[0] == b[1] and first < natural(name)}
    return any(
        count % shape[1] == 0 and 0 in (count % shape[0], shape[0] % count) for count in passed
    )


def _is_behind_single_kernels(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether the one before it in a sequence has a kernel for each channel, and more channels."""
    match = numbers_in(name)
    if not match or name[match[-1].end :] != ".weight" or shape[1] < 2:
        return False
    before = near.shape_of(f"{match[-1].before}{match[-1].value - 1}.weight")
    return before[:2] == (shape[0], 1) and shape[0] > shape[1] and len(before) == len(shape)


def _is_grouped(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether each group of channels has kernels of its own, so that the rows are of many matrices.

    The number of groups is not in a file. A convolution that is added to its inputs as positions,
    as in wav2vec 2, has as many inputs as outputs. Another has groups if its name says so, or if
    the convolutions beside it give more channels than it takes. The cost of an error: a matrix is
    missing, or the rows of several matrices are measured as one.
    """
    outputs, inputs = shape[:2]
    if inputs < 2 or inputs == COLOURS:
        return False
    if is_convolution(name) and (
        not IN_GROUPS.isdisjoint(words(own_part(name))) or _is_beside(POSITIONAL, name, shape, near)
    ):
        return outputs % inputs == 0 and outputs != inputs
    return math.prod(shape[2:]) > 1 and _takes_a_fraction(name, shape, near)


def _is_beside(called: set[str], name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether a convolution is in a module of such a name, and no layer of a network in it.

    It is a layer if another map gives its inputs, or if one takes its outputs: a kernel, or any if
    no other map gives as many. Then its inputs may be anything.
    """
    outputs, inputs = shape[:2]
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if not called.isdisjoint(words(part))), None)
    module = "" if place is None else ".".join(parts[: place + 1])
    if not module or near.count_within(module) > MANY:
        return False
    maps = [one.shape for _, one in near.within(module) if len(one.shape) > 1]
    others = [one for one in maps if one != shape]
    if any(one[0] == inputs > 1 for one in others):
        return False
    is_given = any(one[0] == outputs for one in others)
    return not any(one[1] == outputs and (math.prod(one[2:]) > 1 or not is_given) for one in others)


def _takes_a_fraction(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether a kernel takes a fraction of the channels that it gives, between two maps of width 1.

    So it is in a bottleneck, as in ResNeXt: one of the convolutions of width 1 in its block gives
    a multiple of its inputs, another takes its outputs, and nothing in the block gives or takes as
    many channels as it has inputs. The first of the two comes before the kernel and the other by
    its name: else it may be a branch beside a plain kernel, or one of two that weigh its channels.
    """
    outputs, inputs = shape[:2]
    maps, vectors = _block_of(name, near)
    given = {one[0] for one in maps.values()} | vectors
    taken = {one[1] for one in maps.values() if one != shape}
    if inputs in given | taken:
        return False
    beside = {
        other: one
        for other, one in maps.items()
        if len(one) == len(shape)
        and math.prod(one[2:]) == 1
        and other.count(".") == name.count(".")
    }
    before = [natural(n) for n, one in beside.items() if _is_multiple(one[0], shape)]
    behind = [natural(n) for n, one in beside.items() if one[1] == outputs]
    return bool(before and behind) and min(before) < min(natural(name), max(behind))


def _is_multiple(channels: int, shape: Shape) -> bool:
    """Whether channels may be the inputs of a kernel: in groups, which divide its outputs."""
    groups, rest = divmod(channels, shape[1])
    return groups > 1 and rest == 0 and shape[0] % groups == 0


def _block_of(name: str, near: Neighbours) -> tuple[dict[str, Shape], set[int]]:
    """The innermost part of a model, called by a number or not, that has a map beside this one.

    Returns
    -------
    The shapes of its other maps by name, and the lengths of its vectors.
    """
    module = name.rpartition(".")[0]
    parts = module.split(".")
    ends = [i + 1 for i, part in enumerate(parts) if part[-1:].isdigit()]
    for end in (*reversed(ends), len(parts) - 1):
        block = ".".join(parts[:end])
        if near.count_within(block) > MANY:
            break
        others = {
            other: one.shape
            for other, one in near.within(block)
            if not other.startswith(f"{module}.") and one.shape
        }
        maps = {n: s for n, s in others.items() if sum(size > 1 for size in s[:2]) == 2}
        if maps:
            return maps, {s[0] for s in others.values() if len(s) == 1}
    return {}, set()


def _iter_before(
    start: str, value: int, near: Neighbours
) -> Iterator[tuple[tuple[str, Shape], ...]]:
    """What is below each smaller number of a list: names and shapes of several axes."""
    for i in range(max(0, value - MOST), value):
        yield tuple((n, t.shape) for n, t in near.within(f"{start}{i}") if len(t.shape) > 2)
