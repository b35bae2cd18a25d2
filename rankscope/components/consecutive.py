"""A change and the change before it: the recipe of an update, with the cosine of the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rankscope.checkpoints.contents import Adapter, Delta, is_rescaled
from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.components.deltas import DeltaChange
from rankscope.components.formed import Formed
from rankscope.components.kronecker_deltas import scale_of
from rankscope.components.products import IN_RANGE_OR_NOT
from rankscope.components.recipes import OF_CONTENT, Difference, Weight
from rankscope.components.tensor_errors import formed_of, product_in
from rankscope.errors import RankscopeError
from rankscope.spectra.bounds import Values
from rankscope.spectra.cosines import cosine_of
from rankscope.spectra.matrices import Decomposable, Kronecker
from rankscope.spectra.shared_rounding import shared_rounding


@dataclass(frozen=True)
class Consecutive:
    """A change, and the change of the same matrix that ends where this one begins."""

    change: Difference | DeltaChange
    before: Difference | DeltaChange

    def read(self) -> Decomposable:
        """Read the change; with its cosine, unless one of the two is a Kronecker product.

        Where a file of the change before is damaged, only the cosine is missing.
        """
        change, before = self.change, self.before
        if isinstance(change, Difference) and isinstance(before, Difference):
            if product_in(change.later.tensor) is None:
                return self._of_weights(change, before)
            # Of two factors that no adapter changes: their rounding is not followed here.
            return self._with_cosine(change.read(), lambda: (before.read(), None))
        return self._with_cosine(change.read(), lambda: (before.read(), 0.0))

    def _of_weights(self, change: Difference, before: Difference) -> Decomposable:
        """Each weight is read once."""
        later, shared = (formed_of(one.tensor) for one in (change.later, change.earlier))

        def earlier() -> tuple[Decomposable, float | None]:
            first = formed_of(before.earlier.tensor)
            return before.bare(shared, first), _term([first, shared, later])

        return self._with_cosine(change.between(later, shared), earlier)

    def _with_cosine(
        self, change: Decomposable, earlier: Callable[[], tuple[Decomposable, float | None]]
    ) -> Decomposable:
        """The change with its cosine.

        Parameters
        ----------
        earlier
            Reads the change before, and what the rounding of the shared weight without its adapter
            adds to the inner product of the two.
        """
        if isinstance(change, Kronecker):
            return change
        try:
            before, of_weight = earlier()
            of_adapter = _of_adapters(self._adapters)
        except RankscopeError as error:
            if error.reason in OF_CONTENT:
                return change
            raise
        if isinstance(before, Kronecker):
            return change
        terms = [term for term in (of_weight, of_adapter) if term is not None]
        shared = sum(terms) if len(terms) == 2 else None
        return replace(change, cosine=cosine_of(change, before, shared))

    @property
    def states(self) -> tuple[StoredTensor, ...]:
        """The three weights, last first, if both changes are plain differences; else nothing."""
        change, before = self.change, self.before
        if not (isinstance(change, Difference) and isinstance(before, Difference)):
            return ()
        found = change.states + before.states[1:]
        is_chain = len(found) == 3 and change.earlier == before.later
        return found if is_chain and found[2].shape == found[1].shape else ()

    @property
    def _adapters(self) -> list[Delta | None]:
        """Of the three states, in order."""
        states = self.before.earlier, self.change.earlier, self.change.later
        return [state.adapter if isinstance(state, Weight) else state for state in states]

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both changes."""
        return tuple(dict.fromkeys((*self.change.tensors(), *self.before.tensors())))

    @property
    def work(self) -> float:
        """Operations of the spectrum of the change, beside which the cosine takes few."""
        return self.change.work


@IN_RANGE_OR_NOT
def _of_adapters(adapters: Sequence[Delta | None]) -> float | None:
    """The terms of both factors of scale·B·A: the rounding of B times A, and B times that of A.

    None where that is not known: for other products, and for DoRA, which also rescales the weight.
    """
    shared = adapters[1]
    if any(map(is_rescaled, adapters)):
        return None
    if shared is None:
        return 0.0
    plain = [one if isinstance(one, Adapter) else None for one in adapters]
    if plain != list(adapters):
        return None
    lefts = [None if one is None else formed_of(one.lora_B) for one in plain]
    rights = [None if one is None else formed_of(one.lora_A) for one in plain]
    assert lefts[1] is not None and rights[1] is not None
    sizes = _squares(lefts[1].values).sum(axis=0), _squares(rights[1].values).sum(axis=1)
    terms = _term(lefts, sizes[1][None, :]), _term(rights, sizes[0][:, None])
    if terms[0] is None or terms[1] is None:
        return None
    return scale_of(shared) ** 2 * (terms[0] + terms[1])


def _squares(values: Values) -> Values:
    return np.square(values, dtype=np.float64)


@IN_RANGE_OR_NOT
def _term(states: Sequence[Formed | None], weights: Values | None = None) -> float | None:
    """`shared_rounding` of three states of a stored tensor.

    None where the tensor is computed from others, or the one between is rounded to fewer bits than
    its neighbours.
    """
    before, shared, after = states
    assert shared is not None
    if not shared.values.any():
        return 0.0
    present = [one for one in states if one is not None and one.values.any()]
    if not all(one.is_plain for one in present):
        return None
    formats = [one.stored[0][1] for one in present]
    stored = shared.stored[0][1]
    if stored.mantissa < max(kind.mantissa for kind in formats):
        return None
    neighbours = [
        one.values if one is not None and one.values.shape == shared.values.shape else None
        for one in (before, after)
    ]
    return shared_rounding(neighbours[0], shared.values, neighbours[1], stored, weights)
