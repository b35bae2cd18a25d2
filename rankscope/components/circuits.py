"""Recipes for attention circuits, which stay factored: a stack of products, one per head."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from operator import itemgetter

import numpy as np

from rankscope.checkpoints.contents import GainedNorm
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.formed import Formed, centred, times_gain
from rankscope.components.products import (
    IN_RANGE_OR_NOT,
    Factor,
    change_of_product,
    joined,
    multiplied,
    stacked,
)
from rankscope.components.recipes import Weight
from rankscope.spectra.bounds import multiplying_bound
from rankscope.spectra.matrices import Dense, LowRank, frobenius_norms
from rankscope.spectra.rounding import Rounding


@dataclass(frozen=True)
class Cut:
    """Rows of a weight that belong to heads: blocks of ``size`` rows, a block every ``step`` rows.

    Heads share a block if there are fewer blocks than heads: head h of n uses h // (n // count).
    """

    count: int
    size: int
    step: int = 0
    start: int = 0

    def rows(self) -> list[slice]:
        """The rows of every block."""
        starts = (self.start + i * (self.step or self.size) for i in range(self.count))
        return [slice(start, start + self.size) for start in starts]


@dataclass(frozen=True)
class Link:
    """One factor of the circuits in a layer: a block of a weight for each head.

    Attributes
    ----------
    norm
        What normalises the outputs of these rows. Only its gain is in the circuit, and its mean;
        the number that it divides by differs from token to token.
    by_columns
        Whether blocks are columns, whose inputs are normalised.
    turned
        Whether the transposed block is the factor.
    """

    weight: Weight
    cut: Cut
    norm: GainedNorm | None = None
    by_columns: bool = False
    turned: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the factor of one head."""
        other = self.weight.tensor.shape[0 if self.by_columns else 1]
        is_tall = self.turned != self.by_columns
        return (other, self.cut.size) if is_tall else (self.cut.size, other)

    @property
    def fits(self) -> bool:
        """Whether the weight consists of these blocks, and the gain is for one or all of them."""
        cut = self.cut
        side = self.weight.tensor.shape[1 if self.by_columns else 0]
        sizes = cut.size, cut.size * cut.count
        is_gain = self.norm is None or prod(self.norm.gain.shape) in sizes
        return is_gain and cut.size > 0 and side == cut.count * (cut.step or cut.size)

    def factors(self) -> list[Factor]:
        """Read the weight and cut it into blocks, each with its part of the gain."""
        whole = self.weight.formed()
        whole = whole.part(np.transpose) if self.by_columns else whole
        blocks = [whole.part(itemgetter(rows)) for rows in self.cut.rows()]
        if self.norm is not None:
            blocks = self._normalised(whole, blocks, self.norm)
        if self.turned != self.by_columns:
            blocks = [block.part(np.transpose) for block in blocks]
        return [Factor.of(block) for block in blocks]

    def _normalised(self, whole: Formed, blocks: list[Formed], norm: GainedNorm) -> list[Formed]:
        """The blocks times the gain, which is one for all heads, or has a part for each."""
        gain = norm.gain.read()
        if norm.is_centred and (gain.ndim == 2 or gain.size == self.cut.size):
            blocks = [centred(block) for block in blocks]
        elif norm.is_centred:
            even = centred(whole)
            blocks = [even.part(itemgetter(rows)) for rows in self.cut.rows()]
        parts = np.broadcast_to(gain.reshape(-1, self.cut.size), (self.cut.count, self.cut.size))
        return [
            times_gain(block, part, norm.gain.dtype, offset=norm.offset)
            for block, part in zip(blocks, parts, strict=True)
        ]

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of the weight, and the gain."""
        return self.weight.tensors() + (() if self.norm is None else (self.norm.gain,))


@dataclass(frozen=True)
class Circuits:
    """Circuits of an attention, one per head: a product of links, of rank at most the narrowest.

    Attributes
    ----------
    count
        Number of heads.
    published
        Whether to form the product of two links as the study has it: the second before the first,
        heads side by side.
    """

    links: tuple[Link, ...]
    count: int
    published: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every circuit."""
        return self.links[0].shape[0], self.links[-1].shape[1]

    @property
    def cuts(self) -> tuple[tuple[Cut, tuple[int, ...]], ...]:
        """How every weight is cut, and its shape: what two steps must have in common."""
        return tuple((link.cut, link.weight.tensor.shape) for link in self.links)

    @property
    def fits(self) -> bool:
        """Whether every weight and gain has the shape that its cut needs, and links fit."""
        pairs = itertools.pairwise(link.shape for link in self.links)
        return all(link.fits and self.count % link.cut.count == 0 for link in self.links) and all(
            first[1] == second[0] for first, second in pairs
        )

    @IN_RANGE_OR_NOT
    def read(self) -> Dense | LowRank:
        """The products of the heads, or the published matrix."""
        factors = self.factors()
        if not self.published:
            return factors
        norms = frobenius_norms(factors.left) * frobenius_norms(factors.right)
        multiplying = multiplying_bound(1.0, 1.0, inner=factors.left.shape[1]) * norms
        return Dense(
            np.hstack(list(factors.right @ factors.left)),  # (size, count · size)
            factors.dtype,
            Rounding.by_norm(float(np.linalg.norm(factors.floor)), factors.significant_bits),
            error=float(np.linalg.norm(factors.error + multiplying)),
        )

    @IN_RANGE_OR_NOT
    def factors(self) -> LowRank:
        """Read every link; all but the narrowest inner dimension are multiplied out."""
        widths = [link.shape[1] for link in self.links[:-1]]
        at = widths.index(min(widths)) + 1
        left, right = (
            reduce(_multiplied, [link.factors() for link in links])
            for links in (self.links[:at], self.links[at:])
        )
        dtype = self.links[0].weight.tensor.dtype
        return stacked([joined(*pair, dtype) for pair in _by_head(left, right, self.count)])

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of all links."""
        return tuple(tensor for link in self.links for tensor in link.tensors())

    @property
    def work(self) -> float:
        """Operations of the QR decompositions of all heads."""
        inner = min(link.shape[1] for link in self.links[:-1])
        return 8.0 * self.shape[0] * inner**2 * self.count


def _multiplied(lefts: list[Factor], rights: list[Factor]) -> list[Factor]:
    """The products of the blocks of two links."""
    pairs = _by_head(lefts, rights, max(len(lefts), len(rights)))
    return [Factor.of(multiplied(joined(*pair, pair[0].formed.dtype))) for pair in pairs]


def _by_head(
    lefts: list[Factor], rights: list[Factor], count: int
) -> Iterator[tuple[Factor, Factor]]:
    """The blocks that each of ``count`` heads uses."""
    for head in range(count):
        left, right = (blocks[head // (count // len(blocks))] for blocks in (lefts, rights))
        yield left, right


@dataclass(frozen=True)
class CircuitsChange:
    """The change of the circuits of an attention, of rank at most twice that of a circuit."""

    later: Circuits
    earlier: Circuits

    @IN_RANGE_OR_NOT
    def read(self) -> LowRank:
        """Read the circuits of both checkpoints; the change of an equal head is exactly zero."""
        earlier = self.earlier.factors()
        return replace(change_of_product(self.later.factors(), earlier), before=earlier.norms())

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both checkpoints."""
        return self.later.tensors() + self.earlier.tensors()

    @property
    def work(self) -> float:
        """Operations of QR decompositions of twice the inner dimension."""
        return 4 * self.later.work
