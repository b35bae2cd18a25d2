"""Tensors that are not a linear map: vectors, norms, positions, masks and buffers.

A tensor with at most one axis above 1 is a vector, whatever its name. For others a piece of a name
is not enough: the whole last part must say what the tensor is, and its shape or its neighbours must
agree. Each rule states the cost of an error, which is never a wrong number: either a matrix is
missing, which the account shows, or a table is measured as a matrix with the role ``other``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from rankscope.checkpoints.families.convolutions import POSITIONAL
from rankscope.checkpoints.families.neighbours import Neighbours, is_weight, own_part, words
from rankscope.checkpoints.tensors import FLOATS, Tensor

Shape = tuple[int, ...]

PLACES = POSITIONAL | {"rel", "relative", "type", "segment", "seg", "level"}
TABLES = {
    *("emb", "embed", "embeds", "embedding", "embeddings", "enc", "encoding", "encodings"),
    *("encoder", "table", "tables", "bias", "biases", "pe"),
}
# Words that may follow: the axis or tower of a table.
WHICH = {*"0123456789xyhwtuvdkq", "window", "spatial", "temporal", "cls", "layer", "vlm"}
SIDES = {"height", "width"}
ENCODINGS = {"wpe", "ape", "rpe", "pe"}
POSITIONS = {("w", "pos"), ("embed", "positions"), ("positions", "embed")}
TURNS = {"cos", "sin", "freq", "freqs", "frequencies", "cis", "rope", "rotary", "alibi"}
BESIDE_TURNS = {"cached", "cache", "inv", "emb", "embed", "table", "pos", "complex", "real", "imag"}
ROTARY = {"rotary_emb", "rotary_pos_emb", "rotary_embed", "rotary_embedding", "rope"}
MASKS = {"mask", "masks", "tril", "triu", "tri", "triangle", "triangular", "causal", "subsequent"}
BESIDE_MASKS = {
    *("attn", "attention", "src", "tgt", "memory", "self", "lower", "upper", "future", "local"),
    *("bias", "window", "sliding", "look", "ahead", "cached", "cache", "buffer"),
}
GAINS, VECTORS = {"scale", "gamma", "alpha"}, {"latents", "tokens", "token", "registers", "prompts"}
EXPERTS, PICTURE = {"expert", "experts"}, 3
SHIFTED, MODULATED = {"scale", "shift"}, {"modulate", "modulation"}
QUERIES, KEYS = {"query", "queries"}, {"key", "keys", "value", "values"}
RATES = {"log", "logs", "real", "imag"}
SPLINES = ("grid", "mask", "spline_scaler", "scale_base", "scale_sp")
MOVING = {"ema", "avg", "average", "moving"}
WEIGHT = "weight"
STATISTICS = MOVING | {"mean", "sum", "running", "integer"}


class _Judged(NamedTuple):
    """A tensor, and what it is judged by."""

    name: str
    leaf: str
    shape: Shape
    beside: Mapping[str, Tensor]
    neighbours: Neighbours


def why_no_map(name: str, tensor: Tensor, neighbours: Neighbours) -> str:
    """Why a tensor of floating-point numbers is not a linear map; empty if it may be one."""
    first = neighbours.first_alike[name]
    known = neighbours.judged.get(first)
    if known is None:
        known = neighbours.judged[first] = _why_no_map(first, tensor, neighbours)
    return known


def _why_no_map(name: str, tensor: Tensor, neighbours: Neighbours) -> str:
    shape = tensor.shape
    if sum(size != 1 for size in shape) < 2:
        return "a vector" if shape and max(shape) > 1 else "a number"
    one = _Judged(
        name,
        name.rpartition(".")[2],
        shape,
        neighbours.beside(name),
        neighbours,
    )
    rules = _RULES_OF_WEIGHTS if one.leaf == WEIGHT else _RULES
    return next((why for rule, why in rules if rule(one)), "")


def is_mask(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of booleans or whole numbers is a mask or an index, not a packed weight.

    Booleans and 64-bit numbers are, since nobody packs weights into them; narrower numbers if the
    name says so, and complex ones in a table of rotations. A tensor called a weight is not. The
    cost of an error: weights of a scheme that packs into such numbers are missing without a skip.
    """
    leaf = name.rpartition(".")[2]
    if tensor.dtype in FLOATS or is_weight(name):
        return False
    if tensor.dtype in ("bool", "int64", "uint64") or leaf == "bias":
        return True
    says = set(words(leaf))
    if tensor.dtype.startswith("complex"):
        return _are_turns(says)
    return bool(says & (MASKS | {"index", "indexes", "idx", "idxs", "ids", "coords"}))


def _is_norm(one: _Judged) -> bool:
    """A gain: a scale, one with a bias of the same shape, or one for every head of a projection.

    A linear map is not called a scale, and does not have a bias with its own two axes. Without
    either, the name of the module must end in norm, and a projection beside it must have as many
    rows as the gain has entries. A gain of two axes for which none holds is measured as a matrix.
    """
    if one.leaf in GAINS and "weight" not in one.beside:
        return True
    called = one.leaf.replace("weight", "bias")
    bias = one.beside.get(called)
    if bias is not None and bias.shape == one.shape and called != one.leaf:
        return True
    module = one.name.rpartition(".")[0]
    own = module.rpartition(".")[2]
    if not (own.lower().rstrip("0123456789").endswith("norm") and len(one.shape) == 2):
        return False
    parent, size = module.rpartition(".")[0], one.shape[0] * one.shape[1]
    return size in one.neighbours.sides_within(parent)


def _is_bias(one: _Judged) -> bool:
    """A parameter called a bias: that of a stack or of heads, or GPT-2's causal mask.

    No library calls a linear map a bias. A name such as ``b_Q`` counts only if a weight beside it
    has the same axes plus that of its inputs; ``bq`` counts only if that weight is ``wq``.
    """
    says = words(one.leaf)
    if {*_without(says, WHICH)[-1:]} & {"bias", "biases"}:
        return True
    if says[:1] == ("b",) or says[-1:] == ("b",):
        return one.shape in one.neighbours.shapes_but_one_axis(one.name)
    own = {f"{letter}{one.leaf[1:]}" for letter in "wW" if one.leaf[:1] in ("b", "B")}
    shapes = [one.beside[name].shape for name in own if name in one.beside]
    return any(
        one.shape == (*shape[:axis], *shape[axis + 1 :])
        for shape in shapes
        for axis in range(len(shape))
    )


def _is_position(one: _Judged) -> bool:
    """A table of positions or types of tokens, which are looked up and added.

    Its name has a word such as ``pos``, ``relative`` or ``type`` and ends in one such as ``emb``,
    ``encoding`` or ``bias``, and there is no bias beside it, as there usually is beside a linear
    map. The cost of an error: a linear map with such a name and without a bias is missing.
    """
    above = one.name.removesuffix(f".{one.leaf}")
    above = above.rpartition(".")[0] if is_weight(one.name) else above
    if not _is_called_position(own_part(one.name), above.rpartition(".")[2]):
        return False
    return "bias" not in one.beside and not one.neighbours.has_bias(one.name, one.shape[0])


@lru_cache(maxsize=4096)  # the names of layers and experts share nearly all of their parts
def _is_called_position(part: str, above: str) -> bool:
    """Whether the part that says what a tensor is, or also that above, is that of a table."""
    own = _without(words(part), WHICH)
    if own in POSITIONS or own[-2:] in (("rel", "pos"), ("abs", "pos")) or own[-1:] == ("pe",):
        return True
    if {*own[-1:]} & ENCODINGS or _is_table_of_places(own):
        return True
    is_table = bool({*own[-1:]} & TABLES) or {*own} - SIDES == {"rel"}
    return is_table and _is_table_of_places(words(above))


def _is_table_of_places(says: tuple[str, ...]) -> bool:
    """Whether words are those of a table of positions or, unless it is an encoder's, of types."""
    own = _without(says, WHICH)
    places = POSITIONAL if own[-1:] == ("encoder",) else PLACES
    return bool({*own[-1:]} & TABLES) and bool(places & {*own})


def _without(says: tuple[str, ...], ends: set[str]) -> tuple[str, ...]:
    """The words without those at the end that say which axis or tower a table is for."""
    while says and says[-1] in ends:
        says = says[:-1]
    return says


def _is_rotary(one: _Judged) -> bool:
    """A table of sines and cosines, by the whole name of the buffer or of its module.

    The cost of an error: a learnt matrix of such a name is missing, unless it is called a weight in
    a module ``rope``, as buffers are not.
    """
    if _are_turns({*words(one.leaf)}):
        return True
    return bool(ROTARY & {*one.name.split(".")[:-1]}) and not is_weight(one.name)


def _are_turns(says: set[str]) -> bool:
    return bool(says & TURNS) and says <= TURNS | BESIDE_TURNS


def _is_cache(one: _Judged) -> bool:
    """Keys or values of earlier tokens: called a cache, with axes for a batch and heads.

    The cost of an error: a stack of linear maps that is a bare parameter of such a name is missing.
    """
    is_called = bool({"cache", "cached"} & {*words(one.leaf)})
    return is_called and len(one.shape) > 2 and not is_weight(one.name)


def _is_float_mask(one: _Judged) -> bool:
    """A mask of attention: called a mask, and square in its last two axes.

    The cost of an error: a square linear map that is a bare parameter of such a name is missing.
    """
    says = set(words(one.leaf))
    is_square = one.shape[-1] == one.shape[-2] and all(size == 1 for size in one.shape[:-2])
    return is_square and bool(says & MASKS) and says <= MASKS | BESIDE_MASKS


def _is_statistic(one: _Judged) -> bool:
    """A running mean of another tensor with its module and shape, or of the activations.

    A moving average may also be that of a tensor in a module below, such as a codebook. The cost of
    an error: a parameter of such a name, beside one of its shape, is missing.
    """
    says = words(one.leaf)
    if MOVING & {*says} and not is_weight(one.name):
        module = one.name.removesuffix(one.leaf).removesuffix(".")
        return one.neighbours.shapes_within(module)[one.shape] > 1
    if says[:1] == ("running",) or (one.leaf == "queue" and "queue_ptr" in one.beside):
        return True
    of = "_".join(word for word in says if word not in STATISTICS)
    other = one.beside.get(of)
    return bool(STATISTICS & {*says}) and other is not None and other.shape == one.shape


def _is_rates(one: _Judged) -> bool:
    """How fast a state decays: ``decay``; or ``A_log``, ``A_b_log``, ``A_imag`` and the like.

    ``A_log`` has one row per entry of its ``D``: what each channel skips the state with. The cost
    of an error: a linear map that is a bare parameter of such a name is missing.
    """
    says = words(one.leaf)
    if says[-1:] == ("decay",) or (one.leaf == "D" and "A_log" in one.beside):
        return True
    skip = one.beside.get("D") if one.leaf == "A_log" else None
    is_called = "a" in says and bool(RATES & {*says})
    return is_called and (skip is None or skip.shape[:1] == one.shape[:1])


def _is_of_splines(one: _Judged) -> bool:
    """The knots of splines, and what their coefficients beside them are multiplied with (KAN).

    The cost of an error: a linear map that is a bare parameter of such a name is missing.
    """
    splines = {"spline_weight", "coef"} & one.beside.keys()
    return bool(splines) and one.leaf in SPLINES


def _is_added(one: _Judged) -> bool:
    """Vectors with an axis of 1 before the last, which are broadcast, or called latents or tokens.

    Or called queries, if there are no keys beside them; or a table of scales and shifts, which are
    added to those made from a time step. Only bare parameters count: a stack of one matrix that is
    called a weight is not understood. Parameters of experts do not, since there may be a single
    expert. At most three axes may be longer than 1, as those of a picture: more may be a stack of
    matrices. If this is wrong, a linear map that is a bare parameter of such a name is missing.
    """
    if is_weight(one.name) or EXPERTS & {*words(one.name)}:
        return False
    if len(one.shape) > 2 and 1 in one.shape[:-1]:
        return sum(size > 1 for size in one.shape) <= PICTURE
    says = words(own_part(one.name))
    if {*says} >= SHIFTED or (says[-1:] == ("table",) and {*says} & MODULATED):
        return True
    own = {*says[-1:]}
    return bool(own & VECTORS) or (bool(own & QUERIES) and not one.beside.keys() & KEYS)


_RULES: tuple[tuple[Callable[[_Judged], bool], str], ...] = (
    (_is_bias, "a bias"),
    (_is_norm, "the gain of a norm"),
    (_is_float_mask, "a mask"),
    (_is_rotary, "a table of sines and cosines"),
    (_is_cache, "keys or values of earlier tokens"),
    (_is_position, "a table of positions or types"),
    (_is_statistic, "a running statistic"),
    (_is_rates, "rates of a state space"),
    (_is_of_splines, "knots or gains of splines"),
    (_is_added, "learnt vectors that are added or looked up"),
)
# All others ask for a last part other than this, which nearly all tensors have.
_RULES_OF_WEIGHTS = tuple((rule, why) for rule, why in _RULES if rule in (_is_norm, _is_position))
