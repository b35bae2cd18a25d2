"""Results as an analysis would give them, of two small runs that were never trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from rankscope import metrics, shape_metrics
from rankscope.results.columns import COLUMNS, EVALUATION_COLUMNS
from rankscope.results.representation_tables import (
    typed_input_energies,
    typed_representations,
    typed_similarities,
)
from rankscope.results.results import listed, rows_of, typed_evaluation
from rankscope.statistics.restart_schedules import RESTARTS, restarts_of
from tests.plots.comparisons import subspaces_of_two_runs

Values = NDArray[np.float64]

SHAPES = {
    "q": (64, 64),
    "k": (32, 64),
    "v": (32, 64),
    "o": (64, 64),
    "gate": (176, 64),
    "up": (176, 64),
    "down": (64, 176),
}
NO_ROWS = pd.DataFrame()
LAYERS = 3
STEPS = tuple(range(0, 1000, 100))
RANK = 4


class InMemory:
    """What has its table in memory, and gives parts of it as `Results.rows` does."""

    metrics: pd.DataFrame

    def rows(self, columns: Collection[str] | None = None, **where: Any) -> pd.DataFrame:
        asked = {name: listed(one) for name, one in where.items() if one is not None}
        shown = COLUMNS if columns is None else columns
        there = [one for one in self.metrics if one in shown or one not in COLUMNS]
        found = rows_of(self.metrics, there, asked)
        found.attrs |= {RESTARTS: restarts_of(self.metrics)}
        return found

    def distinct(self, columns: Collection[str], **where: Any) -> pd.DataFrame:
        return self.rows(columns, **where).drop_duplicates(ignore_index=True)


@dataclass(frozen=True)
class SyntheticResults(InMemory):
    """The interface of an analysis' results, with every spectrum in memory."""

    metrics: pd.DataFrame
    training: pd.DataFrame
    all_spectra: pd.DataFrame
    evaluation: pd.DataFrame
    subspaces: pd.DataFrame
    representations: pd.DataFrame = field(default_factory=lambda: typed_representations(NO_ROWS))
    similarities: pd.DataFrame = field(default_factory=lambda: typed_similarities(NO_ROWS))
    input_energies: pd.DataFrame = field(default_factory=lambda: typed_input_energies(NO_ROWS))

    def spectra(
        self,
        component: str = "update",
        *,
        run: str | None = None,
        step: int | None = None,
        layer: int | None = None,
        role: str | Collection[str] | None = None,
    ) -> pd.DataFrame:
        rows = self.all_spectra
        wanted = {"component": component, "run": run, "step": step, "layer": layer, "role": role}
        for column, value in wanted.items():
            if value is not None:
                rows = rows[rows[column].isin(listed(value))]
        return rows


def decaying(rng: np.random.Generator, count: int, steepness: float) -> Values:
    """Descending singular values that fall by a factor of e^steepness, with some scatter."""
    s = np.exp(-steepness * np.arange(count) / count + 0.05 * rng.normal(size=count))
    return np.sort(s)[::-1].copy()


def measured(s: Values, shape: tuple[int, int], floor: float) -> dict[str, object]:
    """Every metric of a spectrum, as the table holds it."""
    q = min(shape)
    rank = metrics.numerical_rank(s, floor)
    zero = not s.any()
    resolved = rank == q
    kappa = metrics.condition_number(s, at=q) if resolved else float(s[0] / floor)
    status = "" if zero else "ok" if resolved else "lower-bound" if s.size == q else "inf"
    return {
        "rows": shape[0],
        "cols": shape[1],
        "dtype": "F32",
        "status": "zero" if zero else "ok",
        "effective_rank": metrics.effective_rank(s),
        "per": metrics.proportional_effective_rank(s, shape=shape),
        "per_error": np.nan if zero else 1e-9,
        "per_gaussian": metrics.gaussian_per(shape),
        "rank_utilisation": metrics.effective_rank(s) / s.size,
        "stable_rank": metrics.stable_rank(s),
        "participation_ratio": metrics.participation_ratio(s),
        "tail_index": shape_metrics.tail_index(s, s, s, noise_floor=floor).value,
        "tail_index_gaussian": shape_metrics.gaussian_tail_index(shape),
        "outliers": shape_metrics.outliers(s, shape),
        "noise_floor": floor,
        "noise_source": "storage",
        "numerical_rank": np.nan if zero else rank,
        "condition_number": np.nan if zero else np.inf if status == "inf" else kappa,
        "condition_number_status": status,
        "condition_number_raw": metrics.condition_number(s),
        "condition_number_r": metrics.condition_number(s, at=max(rank, 1)),
        "condition_number_90": metrics.condition_number(s, at=int(np.ceil(0.9 * q))),
        "noise_share": metrics.noise_share(s, floor, rank),
        "spectral_norm": metrics.spectral_norm(s),
        "frobenius_norm": metrics.frobenius_norm(s),
        "nuclear_norm": metrics.nuclear_norm(s),
        "max_rank": s.size,
        "sigma_error": 1e-12,
        "route": "gram" if s.size == q else "low-rank",
    }


def spectra_of_run(
    run: str, rng: np.random.Generator
) -> Iterator[tuple[dict[str, object], Values, tuple[int, int], float]]:
    """Yield place, singular values, shape and noise floor of every matrix of one run."""
    for layer in range(LAYERS):
        for role, shape in SHAPES.items():
            q = min(shape)
            for time, step in enumerate(STEPS):
                place = {"run": run, "step": step, "layer": layer, "role": role}
                sharp = 2.0 if run == "full" else 1.2
                flat = 4 if shape[0] == shape[1] else 1.2
                weight = decaying(rng, q, flat + sharp * time / len(STEPS) + 0.2 * layer)
                # The last values of late square matrices come to lie under the floor.
                weight[-1] *= 10.0 ** (-time * (shape[0] == shape[1]) / 2)
                yield place | {"component": "weight"}, weight, shape, 1e-5
                if run == "full" and step:
                    update = decaying(rng, q, 3.0 + 0.4 * time)
                    yield place | {"component": "update"}, update, shape, 0.02
                if run == "relora":
                    s = decaying(rng, RANK, 1.5) if step else np.zeros(RANK)
                    yield place | {"component": "adapter"}, s, shape, 1e-9
                    if step:
                        # One window in which nothing was learnt, in every layer.
                        still = np.zeros(RANK) if step == 500 else s
                        yield place | {"component": "update"}, still, shape, 1e-9
                        yield place | {"component": "merge"}, s, shape, 1e-9
                        total = decaying(rng, min(q, RANK * time), 1.0)
                        yield place | {"component": "merged_total"}, total, shape, 1e-9


def training_of_run(run: str, rng: np.random.Generator) -> pd.DataFrame:
    """A falling loss with noise, validation every 100 steps, and restarts for relora."""
    steps = np.arange(5, 1000, 5)
    loss = 1.5 + 3.2 * np.exp(-steps / 120) + 0.06 * rng.normal(size=steps.size)
    logged = pd.DataFrame({"run": run, "step": steps, "loss": loss + 0.2 * (run == "relora")})
    logged["tokens"] = 64 * steps
    logged["validation_loss"] = logged["loss"].where(logged["step"] % 100 == 0)
    logged["event"] = None
    if run == "relora":
        restarts = pd.DataFrame({"run": run, "step": [s for s in STEPS if s], "event": "restart"})
        shares = {"captured_energy": 0.1 + 5e-4 * restarts["step"], "overlap": 0.05}
        logged = pd.concat([logged.astype({"event": object}), restarts.assign(**shares)])
    return logged


def evaluation_of_run(run: str, rng: np.random.Generator) -> pd.DataFrame:
    """A perplexity that falls, and accuracies that rise from chance, as `evaluate` gives them."""
    rows = []
    for step in STEPS:
        loss = 3.0 + 2 * np.exp(-step / 300) + 0.02 * rng.normal()
        for metric, change in (("loss", float), ("perplexity", np.exp)):
            values = [change(loss + by) for by in (0, -0.1, 0.1)]
            rows.append((run, step, "novels", "all", metric, *values, 30))
        for group in ("all", "phenomenon:anaphor_agreement", "phenomenon:binding"):
            right = 0.5 + 2e-4 * step + 0.01 * rng.normal()
            values = [right, right - 0.02, right + 0.02]
            rows.append((run, step, "blimp", group, "accuracy", *values, 2000))
            rows.append((run, step, "blimp", group, "ties", 0.0, np.nan, np.nan, 2000))
    return typed_evaluation(pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS)))


def synthetic_results() -> SyntheticResults:
    rng = np.random.default_rng(7)
    rows, spectra = [], []
    for run in ("full", "relora"):
        for place, s, shape, floor in spectra_of_run(run, rng):
            named = place | {"head": pd.NA, "expert": pd.NA, "name": "w", "noise_floor": floor}
            rows.append(named | measured(s, shape, floor))
            spectra += [named | {"index": i, "singular_value": x} for i, x in enumerate(s)]
    table = pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64", "expert": "Int64"})
    training = pd.concat([training_of_run(run, rng) for run in ("full", "relora")])
    every = pd.DataFrame(spectra).astype({"layer": "Int64", "head": "Int64"})
    every = every.assign(lower=0.99 * every["singular_value"], upper=1.01 * every["singular_value"])
    evaluation = pd.concat([evaluation_of_run(run, rng) for run in ("full", "relora")])
    return SyntheticResults(
        table,
        training.reset_index(drop=True),
        every,
        evaluation.reset_index(drop=True),
        subspaces_of_two_runs(),
    )


@pytest.fixture(scope="session")
def results() -> SyntheticResults:
    return synthetic_results()


@pytest.fixture
def table(results: SyntheticResults) -> pd.DataFrame:
    return results.metrics.copy()


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    mpl.use("agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
