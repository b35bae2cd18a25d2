"""Every matrix of the runs again, from their files: as exact fractions, with its noise floor.

Plain code that shares nothing with the package: torch reads the files, `fractions` forms the
matrices, and the floors are written out from their definitions in docs/numerics.md.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import mpmath
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from tests.components.exact import Rational, exact
from tests.oracle.series import EMBEDDING, HEADS, KV_HEADS, MODULES, SIZE, rank_of

Matrix = NDArray[np.float64]
# Significant bits, and smallest normal exponent.
HELD = {torch.bfloat16: (8, -126), torch.float16: (11, -14), torch.float32: (24, -126),
        torch.float64: (53, -1022)}  # fmt: skip
ATTENTION = "model.layers.0.self_attn"


class Key(NamedTuple):
    """The matrix that a row describes."""

    run: str
    step: int
    component: str
    name: str
    head: int | None = None


@dataclass
class Truth:
    """An exact matrix, and the values of the columns that do not follow from its spectrum."""

    matrix: Rational
    floor: float  # of the storage
    bits: int
    max_rank: int
    before: Rational | None = None
    earlier_change: Rational | None = None
    window: tuple[int | None, int | None, str] = (None, None, "")


@dataclass
class Adapter:
    """The factors of a module, their floors by format, and a scale."""

    left: Tensor
    right: Tensor
    scale: Fraction

    @property
    def product(self) -> Rational:
        return self.scale * (_exact(self.left) @ _exact(self.right))

    @property
    def rank(self) -> int:
        return 0 if not self.left.any() else self.right.shape[0]

    @property
    def floor(self) -> float:
        left, right = _norm(self.left), _norm(self.right)
        e_left, e_right = edge(variances(self.left)), edge(variances(self.right))
        return float(self.scale) * (left * e_right + e_left * right + e_left * e_right)

    @property
    def bits(self) -> int:
        return min(bits_of(self.left)[0], bits_of(self.right)[0])


@dataclass
class State:
    """A checkpoint: the frozen weights, and the adapters on them."""

    run: str
    step: int
    weights: dict[str, Tensor]
    adapters: dict[str, Adapter]
    origins: dict[str, Tensor]  # what merges changed before this step, as it was at first

    def effective(self, module: str) -> Rational:
        weight = _exact(self.weights[f"{module}.weight"])
        return weight + self.adapters[module].product if module in self.adapters else weight

    def stored(self, module: str) -> list[Tensor]:
        """Stored matrices whose rounding is in the weight."""
        weight, origin = self.weights[f"{module}.weight"], self.origins.get(module)
        if origin is None or bits_of(origin)[0] >= bits_of(weight)[0]:
            return [weight]
        return [weight, origin]

    def beside(self, module: str) -> float:
        return self.adapters[module].floor if module in self.adapters else 0.0


def bits_of(tensor: Tensor) -> tuple[int, int]:
    """Significant bits of the narrowest format that holds every value, at most those of its own."""
    for dtype, found in HELD.items():
        if tensor.any() and bool((tensor.double() == tensor.to(dtype).double()).all()):
            return min(found, HELD[tensor.dtype])
    return HELD[tensor.dtype]


def variances(tensor: Tensor) -> Matrix:
    """ulp²/12 of every entry: of the format that holds the values, not below the file's last."""
    (bits, smallest), (own_bits, own_smallest) = bits_of(tensor), HELD[tensor.dtype]
    values = tensor.double().numpy()
    if not values.any():  # 1e-44 at most
        return np.zeros(values.shape)
    exponents = np.where(values == 0, smallest, np.frexp(values)[1] - 1)
    ulp = np.exp2(np.maximum(exponents, smallest) - bits + 1.0)
    return np.asarray(np.maximum(ulp, 2.0 ** (own_smallest - own_bits + 1)) ** 2 / 12)


def edge(variance: Matrix) -> float:
    """1.5 times the sum of the largest row deviation and the largest column deviation."""
    return float(1.5 * (np.sqrt(variance.sum(axis=1).max()) + np.sqrt(variance.sum(axis=0).max())))


def states(runs: dict[str, Path]) -> dict[str, list[State]]:
    """All checkpoints of all runs, read by torch."""
    found: dict[str, list[State]] = {}
    relora = [int(p.name[5:]) for p in sorted((runs["relora"] / "checkpoints").iterdir())]
    for step in relora:
        folder = runs["relora"] / "checkpoints" / f"step-{step:08d}"
        weights = load_file(folder / "model.safetensors")
        first = found["relora"][0].weights if "relora" in found else weights
        origins = {m: first[f"{m}.weight"] for m in MODULES} if step > 10 else {}
        state = State("relora", step, weights, read_adapters(folder / "adapter"), origins)
        found.setdefault("relora", []).append(state)
    for step in (5, 10, 20, 40):
        weights = load_file(runs["plain"] / f"checkpoint-{step}" / "model.safetensors")
        found.setdefault("plain", []).append(State("plain", step, weights, {}, {}))
    base = load_file(runs["tuned"].parent / "base-model" / "model.safetensors")
    for step in (100, 200, 300):
        adapters = read_adapters(runs["tuned"] / f"checkpoint-{step}")
        found.setdefault("tuned", []).append(State("tuned", step, base, adapters, {}))
    return found


def read_adapters(folder: Path) -> dict[str, Adapter]:
    """Factors of a PEFT folder, the scale to sixty digits."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors, found = load_file(folder / "adapter_model.safetensors"), {}
    for module in MODULES:
        left, right = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in ("B", "A"))
        patterns = config.get("alpha_pattern", {})
        alpha = next((a for p, a in patterns.items() if module.endswith(p)), config["lora_alpha"])
        rank = rank_of(config, module)
        with mpmath.workdps(80):
            root = mpmath.sqrt(rank) if config.get("use_rslora") else mpmath.mpf(rank)
            scale = Fraction(int(mpmath.mpf(alpha) / root * 10**60), 10**60)
        found[module] = Adapter(left, right, scale)
    return found


def read_merges(run: Path) -> dict[int, dict[str, Adapter]]:
    """Records of the merges by step."""
    merges = {}
    for path in sorted((run / "merges").iterdir()):
        tensors = load_file(path)
        merges[int(path.stem[5:])] = {
            m: Adapter(
                tensors[f"{m}.lora_B"],
                tensors[f"{m}.lora_A"],
                Fraction(tensors[f"{m}.scale"].item()),
            )
            for m in MODULES
        }
    return merges


def truths(runs: dict[str, Path]) -> Iterator[tuple[Key, Truth]]:
    """Every row that an analysis of all components has to give."""
    merges = read_merges(runs["relora"])
    for run, series in states(runs).items():
        of_run = merges if run == "relora" else {}
        base = State(run, -1, series[0].weights, {}, {})  # of an adapter, which is no step of a run
        start = base if run == "tuned" else series[0]
        for place, now in enumerate(series):
            yield from _at(now)
            for component, before in (("update", series[max(place - 1, 0)]),
                                      ("cumulative_update", start)):  # fmt: skip
                earlier = series[place - 2] if component == "update" and place > 1 else None
                if before.step < now.step:
                    yield from _changes(component, now, before, earlier, sorted(of_run))
            if place:
                yield from _circuit_changes(now, series[place - 1], sorted(of_run))
    yield from _merges(merges)


def _at(now: State) -> Iterator[tuple[Key, Truth]]:
    for module in (*MODULES, EMBEDDING):
        name, shape = f"{module}.weight", now.weights[f"{module}.weight"].shape
        variance = sum(variances(t) for t in now.stored(module))
        bits = min(bits_of(t)[0] for t in now.stored(module))
        floor = np.hypot(edge(np.asarray(variance)), now.beside(module))
        yield (
            Key(now.run, now.step, "weight", name),
            Truth(now.effective(module), float(floor), bits, min(shape)),
        )
        if module not in now.adapters:
            continue
        adapter, weight = now.adapters[module], now.weights[name]
        yield (
            Key(now.run, now.step, "base", name),
            Truth(_exact(weight), edge(np.asarray(variance)), bits, min(shape)),
        )
        rank = min(adapter.right.shape[0], *shape)
        yield (
            Key(now.run, now.step, "adapter", name),
            Truth(adapter.product, adapter.floor, adapter.bits, rank),
        )
    circuits = [_circuit(now, head) for head in range(HEADS)]
    for head, one in enumerate(circuits):
        yield Key(now.run, now.step, "ov", f"{ATTENTION}.ov", head), one
        yield Key(now.run, now.step, "qk", f"{ATTENTION}.qk", head), _circuit(now, head, "qk")
    value, output = (now.effective(f"{ATTENTION}.{x}_proj") for x in "vo")
    blocks = [value[_part(h // 2)] @ output[:, _part(h)] for h in range(HEADS)]
    floor = float(np.sqrt(sum(one.floor**2 for one in circuits)))
    bits = min(one.bits for one in circuits)
    yield (
        Key(now.run, now.step, "ov-published", f"{ATTENTION}.ov"),
        Truth(np.hstack(blocks), floor, bits, SIZE),
    )


def _part(index: int) -> slice:
    return slice(index * SIZE, (index + 1) * SIZE)


def _circuit(now: State, head: int, kind: str = "ov", *, with_origins: bool = True) -> Truth:
    """Product of a head's output columns with the value rows of its group, and its floor.

    Or of the head's query rows, transposed, with the key rows of its group.
    """
    first, second = (f"{ATTENTION}.{one}_proj" for one in kind)
    own, rows = _part(head), _part(head // (HEADS // KV_HEADS))
    of_own = (slice(None), own) if kind == "ov" else (own, slice(None))
    sides, edges, bits = [], [], []
    for module, index in ((first, of_own), (second, (rows, slice(None)))):
        stored = now.stored(module) if with_origins else [now.weights[f"{module}.weight"]]
        variance = sum(variances(t)[index] for t in stored)
        edges.append(float(np.hypot(edge(np.asarray(variance)), now.beside(module))))
        sides.append(now.effective(module)[index])
        bits.append(min(bits_of(t)[0] for t in stored))
    norms = [float(np.linalg.norm(np.array(side, np.float64), 2)) for side in sides]
    floor = norms[0] * edges[1] + edges[0] * norms[1] + edges[0] * edges[1]
    left = sides[0] if kind == "ov" else sides[0].T
    return Truth(left @ sides[1], floor, min(bits), SIZE)


def _changes(
    component: str, now: State, before: State, earlier: State | None, merged: list[int]
) -> Iterator[tuple[Key, Truth]]:
    for module in (*MODULES, EMBEDDING):
        name = f"{module}.weight"
        weights = [state.weights[name] for state in (now, before)]
        adapters = [s.adapters[module] for s in (now, before) if module in s.adapters]
        steps = merged if adapters else []
        beside = float(np.sqrt(sum(adapter.floor**2 for adapter in adapters)))
        q = min(weights[0].shape)
        if adapters and torch.equal(*weights):
            bits = min(a.bits for a in adapters if a.rank)
            ranks = [adapter.rank for adapter in adapters]
            same = len(adapters) == 2 and torch.equal(adapters[0].left, adapters[1].left)
            rank, floor = min(q, max(ranks) if same else sum(ranks)), beside
            if 0 in ranks:
                bits = min(a.bits for a in adapters)
        else:
            times = max(sum(before.step <= s < now.step for s in steps), 1)
            spent = bool(steps) and any(before.step <= s < now.step for s in steps)
            first = variances(weights[1])
            bits = min(bits_of(weight)[0] for weight in weights)
            if spent and bits_of(weights[1])[0] < bits_of(weights[0])[0]:
                # The base's rounding is in both: what counts is its file's.
                own = HELD[weights[1].dtype]
                values = weights[1].double().numpy()
                first = np.exp2(np.frexp(values)[1] - 1 - own[0] + 1.0) ** 2 / 12
                bits = bits_of(weights[0])[0]
            floor = float(np.hypot(edge(variances(weights[0]) * times + first), beside))
            rank = q
        yield (
            Key(now.run, now.step, component, name),
            Truth(
                now.effective(module) - before.effective(module),
                floor,
                bits,
                rank,
                before=before.effective(module),
                earlier_change=earlier and before.effective(module) - earlier.effective(module),
                window=window(before.step, now.step, steps),
            ),
        )


def window(since: int, step: int, merged: list[int]) -> tuple[int | None, int, str]:
    """Start, restarts within, and kind of a window of the run whose adapters start at step 0."""
    if since < 0:
        return None, 0, ""
    inside = sum(since < at < step for at in merged)
    if not merged:
        return since, 0, ""
    if inside:
        return since, inside, "across"
    ends = {0, *merged}
    return since, 0, "cycle" if {since, step} <= ends else "within"


def _circuit_changes(now: State, before: State, merged: list[int]) -> Iterator[tuple[Key, Truth]]:
    for head, kind in itertools.product(range(HEADS), ("ov", "qk")):
        later, earlier = (_circuit(s, head, kind, with_origins=False) for s in (now, before))
        yield (
            Key(now.run, now.step, f"{kind}_update", f"{ATTENTION}.{kind}", head),
            Truth(
                later.matrix - earlier.matrix,
                float(np.hypot(later.floor, earlier.floor)),
                min(later.bits, earlier.bits),
                2 * SIZE,
                before=earlier.matrix,
                window=window(before.step, now.step, merged),
            ),
        )


def _merges(merges: dict[int, dict[str, Adapter]]) -> Iterator[tuple[Key, Truth]]:
    steps = sorted(merges)
    for place, step in enumerate(steps):
        for module, shape in MODULES.items():
            name, last = f"{module}.weight", merges[step][module]
            since = steps[place - 1] if place else None
            rank = min(last.rank, *shape)
            yield (
                Key("relora", step, "merge", name),
                Truth(last.product, last.floor, last.bits, rank, window=(since, 0, "cycle")),
            )
            so_far = [merges[at][module] for at in steps[: place + 1]]
            yield (
                Key("relora", step, "merged_total", name),
                Truth(
                    sum(one.product for one in so_far),
                    float(np.sqrt(sum(one.floor**2 for one in so_far))),
                    min(one.bits for one in so_far),
                    min(sum(one.rank for one in so_far), *shape),
                ),
            )


def _exact(tensor: Tensor) -> Rational:
    return exact(tensor.double().numpy())


def _norm(tensor: Tensor) -> float:
    return float(np.linalg.norm(tensor.double().numpy(), 2))
