"""`FIGURES`: every figure by its name, drawn from a folder of results."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from dataclasses import replace
from functools import partial, reduce
from operator import attrgetter, or_

import pandas as pd
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError, closest_first
from rankscope.plots.adapter_cycles import adapter_ranks, has_subspaces, has_varied_ranks
from rankscope.plots.circuit_maps import head_maps
from rankscope.plots.correlations import has_correlations, rank_and_performance
from rankscope.plots.decay import update_spectra
from rankscope.plots.depth_panels import depth_profiles, has_depth
from rankscope.plots.energy_lines import figure_of_energies
from rankscope.plots.evaluation_curves import blimp_phenomena, main_measures, performance, phenomena
from rankscope.plots.feature_figures import default_features, figures_of_features
from rankscope.plots.feature_scatter import features_against_weights, has_features_of_weights
from rankscope.plots.gallery_figure import GalleryFigure
from rankscope.plots.half_panels import by_half, has_halves
from rankscope.plots.histograms import update_histograms
from rankscope.plots.intruder_maps import intruders
from rankscope.plots.maps import heatmaps
from rankscope.plots.merge_alignment import merge_overlaps
from rankscope.plots.published_lines import has_published_scores, has_published_spectra
from rankscope.plots.rate_curves import has_learning_rate, learning_rates
from rankscope.plots.role_panels import condition_number, outliers, per, tail_index
from rankscope.plots.run_scatter import has_run_points, rank_against_performance
from rankscope.plots.staircases import merged_ranks
from rankscope.plots.style import plain
from rankscope.plots.subspace_lines import overlaps
from rankscope.plots.training_curves import has_loss, losses
from rankscope.results.results import Results
from rankscope.statistics.correlation import correlate
from rankscope.statistics.feature_rows import kinds_of_places
from rankscope.statistics.replicates import AGAINST, RUN_GROUP, all_runs, groups_of, with_groups
from rankscope.statistics.row_choice import (
    SERIES,
    by_run,
    distinct,
    has_component,
    series_names,
)
from rankscope.statistics.subspace_means import Measure, has_comparisons

PLURALS = {"weight": "weights", "update": "updates", "adapter": "adapters", "merge": "merges"}
PLURALS |= {"cumulative_update": "cumulative-updates", "gradient": "gradients"}
PLURALS |= {"merged_total": "merged-totals", "ov_update": "ov-updates", "factor": "factors"}
PLURALS |= {"qk_update": "qk-updates"}
COMPARED = ("similarities", "input_energies")
TABLES = ("metrics", "evaluation", "training", "subspaces", "representations", *COMPARED)
PER, KAPPA, MAP, HALVES = "per-", "condition-numbers-", "heatmap-", "halves-"
RESOLVED = "weights above the noise floor"


def figures_of(component: str) -> dict[str, GalleryFigure]:
    """The figures of one component of the matrices, whatever it is, by name."""
    plural, words = PLURALS.get(component, component), component.replace("_", "-")
    kappa = "condition_number" if component in ("weight", "base") else "condition_number_r"

    def in_halves(column: str) -> GalleryFigure:
        made = _of_matrices(
            column,
            component,
            lambda r, hue: by_half(r.metrics, column, component=component, hue=hue),
        )
        return replace(
            made,
            has_data=lambda r: made.has_data(r) and has_halves(r.metrics, component),
            drawn_from=f"{made.drawn_from} in four layers or more",
        )

    return {
        f"{PER}{plural}": replace(
            _of_matrices(
                "per",
                component,
                lambda r, hue, p=False: per(r.metrics, component, hue=hue, published=p),
            ),
            has_published=lambda r: has_published_spectra(r.metrics, "per", component),
        ),
        f"{KAPPA}{plural}": replace(
            _of_matrices(
                kappa,
                component,
                lambda r, hue, p=False: condition_number(
                    r.metrics, component, hue=hue, published=p
                ),
            ),
            has_published=lambda r: has_published_spectra(r.metrics, kappa, component),
        ),
        f"{HALVES}{PER}{plural}": in_halves("per"),
        f"{HALVES}{KAPPA}{plural}": in_halves(kappa),
        f"{words}-histograms": _of_matrices(
            "per", component, lambda r, hue: update_histograms(r, component=component, hue=hue)
        ),
        f"{words}-spectra": _of_matrices(
            "per", component, lambda r, hue: update_spectra(r, component=component, hue=hue)
        ),
        f"{MAP}{PER}{plural}": _of_matrices(
            "per", component, lambda r, hue: heatmaps(r.metrics, component=component, hue=hue)
        ),
    }


def _of_matrices(
    column: str, component: str, draw: Callable[..., Figure], drawn_from: str = ""
) -> GalleryFigure:
    """A figure of a metric of one component; ``drawn_from`` is its name if not given."""
    plural = PLURALS.get(component, component).replace("-", " ")
    return GalleryFigure(
        draw, lambda r: _has_value(r.metrics, component, column), drawn_from or plural, component
    )


def _has_value(table: pd.DataFrame, component: str, column: str) -> bool:
    if not has_component(table, component):
        return False
    return bool(table.loc[table["component"] == component, column].notna().any())


def selected(
    results: Results,
    *,
    runs: Collection[str] = (),
    roles: Collection[str] = (),
    group: str | None = None,
) -> Results:
    """The results of some runs and roles; of all where none are named.

    All runs keep the colours that they have in figures of everything. With a pattern in ``group``,
    the tables get the column of `rankscope.grouped`, and each `GalleryFigure` draws the groups.

    Raises
    ------
    WrongSettingError
        If the results have no such run or role, or the pattern matches none of the runs.
    """
    tables = {name: getattr(results, name) for name in TABLES}
    tables = {name: table for name, table in tables.items() if "run" in table}
    there = dict.fromkeys(run for table in tables.values() for run in all_runs(table))
    _check("run", runs, [there])
    _check("role", roles, [results.metrics["role"].unique()])
    groups = None if group is None else groups_of(there, group)
    return _with_tables(
        results,
        **{
            name: _chosen(_in_study(table, there, groups), runs=runs, roles=roles)
            for name, table in tables.items()
        },
    )


def _in_study(
    table: pd.DataFrame, runs: Iterable[str], groups: Mapping[str, str] | None
) -> pd.DataFrame:
    """The table with what it takes to colour its runs, or groups of them, as in all figures."""
    names = {"run": [*runs]}
    if groups is not None:
        table = with_groups(table, groups)
        names[RUN_GROUP] = [*dict.fromkeys(groups.values())]
    table = table.copy(deep=False)
    table.attrs |= {SERIES: names}
    return table


def _chosen(table: pd.DataFrame, *, runs: Collection[str], roles: Collection[str]) -> pd.DataFrame:
    for column, wanted in (("run", runs), (AGAINST, runs), ("role", roles)):
        if wanted and column in table.columns:
            table = table[table[column].isin(wanted)]
    return table


def gallery(
    results: Results,
    *,
    only: Collection[str] = (),
    components: Collection[str] = (),
    published: bool = False,
) -> dict[str, GalleryFigure]:
    """Figures to draw: those that are named, those of some components, or else `FIGURES`.

    To these a figure is added for each component whose spectra were measured and would have none.
    With ``published``, those for which `rankscope.published.weiss2025` has curves are drawn over
    them.

    Raises
    ------
    WrongSettingError
        If there is no such figure, the results have no such component, or nothing is published of
        what they hold.
    """
    chosen = _figures_for(results, only, components)
    if not published:
        return chosen
    if not any(figure.is_published(results) for figure in chosen.values()):
        raise WrongSettingError(
            "nothing is published of matrices of these shapes, of these tasks, nor of features of "
            "these places, by step: leave out `published`"
        )
    return {name: figure.over_published(results) for name, figure in chosen.items()}


def _figures_for(
    results: Results, only: Collection[str], components: Collection[str]
) -> dict[str, GalleryFigure]:
    there = distinct(results.metrics, "component")
    _check("component", components, [results.metrics["component"]])
    kinds = kinds_of_places(results.representations)
    of_text = reduce(or_, map(figures_of_features, kinds), OF_TEXT)
    every = reduce(or_, (figures_of(str(component)) for component in there), FIGURES)
    every |= of_text | _of_other_texts(of_text, results)
    if only:
        _check("figure", only, [list(every)])
        return {name: every[name] for name in only}
    if components:
        return {name: figure for name, figure in every.items() if figure.component in components}
    others = ("subspaces", "input_energies")
    spectra = _with_tables(results, **{name: getattr(results, name).iloc[:0] for name in others})
    shown = {f.component for f in FIGURES.values() if f.component and f.has_data(spectra)}
    rest = (_default(str(component), PER) for component in there if component not in shown)
    of_text = reduce(or_, map(default_features, kinds), OF_TEXT)
    return reduce(or_, rest, FIGURES) | of_text | _of_other_texts(of_text, results)


def _check(what: str, names: Collection[str], known: Iterable[Iterable[object]]) -> None:
    there = dict.fromkeys(str(name) for column in known for name in column)
    for name in names:
        if name not in there:
            listing = closest_first(name, there)
            raise WrongSettingError(f"unknown {what} {name!r}: choose from {listing}")


def _with_tables(results: Results, **tables: pd.DataFrame) -> Results:
    """The same results with other tables in place of those that are read."""
    changed = copy(results)
    vars(changed).update(tables)
    return changed


def _default(component: str, *kinds: str) -> dict[str, GalleryFigure]:
    """The figures of a component that are drawn by default."""
    return {n: figure for n, figure in figures_of(component).items() if n.startswith(kinds)}


def _alone(results: Results) -> Results:
    """Results without the adapters of runs that have weights, whose figures would show both."""
    table = results.metrics
    whole = table["run"].isin(table.loc[table["component"] == "weight", "run"].unique())
    return _with_tables(results, metrics=table[~(whole & (table["component"] == "adapter"))])


def _of_other_texts(
    figures: Mapping[str, GalleryFigure], results: Results
) -> dict[str, GalleryFigure]:
    """Figures of features once more, for each text and kind of tokens but the first."""
    probes = results.representations[["text", "features"]].dropna().drop_duplicates()
    names = sorted(probes.itertuples(index=False, name=None))
    made = {}
    for probe in names[1:]:
        chosen = partial(_of_text, probe=probe)
        parts = [part for part, first in zip(probe, names[0], strict=True) if part != first]
        for name, figure in figures.items():
            if figure.has_data(chosen(results)):
                words = (f"{part} tokens" if part == probe[1] else plain(part) for part in parts)
                title = ", ".join([figure.title, *words])
                end = re.sub(r"[^\w.]+", "-", "-".join(parts))
                made[f"{name}-{end}"] = replace(_from(figure, chosen), title=title)
    return made


def _of_text(results: Results, probe: tuple[str, str]) -> Results:
    """Results whose features are those of one text, and of all or the last tokens of windows."""
    tables = {name: getattr(results, name) for name in ("representations", *COMPARED)}
    text, features = probe
    return _with_tables(
        results,
        **{
            name: table[(table["text"] == text) & (table["features"] == features)]
            for name, table in tables.items()
        },
    )


def _from(figure: GalleryFigure, chosen: Callable[[Results], Results]) -> GalleryFigure:
    """The figure of a part of the results."""
    return replace(
        figure,
        draw=lambda results, *hue: figure.draw(chosen(results), *hue),
        has_data=lambda results: figure.has_data(chosen(results)),
        table=lambda results: figure.table(chosen(results)),
    )


def _of_subspaces(
    measure: Measure, component: str, draw: Callable[[pd.DataFrame, str], Figure]
) -> GalleryFigure:
    return GalleryFigure(
        lambda results, hue: draw(results.subspaces, hue),
        lambda results: has_comparisons(results.subspaces, measure, component),
        f"subspaces of {PLURALS[component]}, which `analyze` measures if `subspaces` is set",
        component,
        attrgetter("subspaces"),
    )


def _names(results: Results, table: pd.DataFrame, hue: str) -> list[object]:
    """Names of all series that were analysed or are in the table, to colour them alike."""
    return [*{*series_names(results.metrics, hue), *series_names(table, hue)}]


def _correlated(results: Results, hue: str = "run") -> pd.DataFrame:
    table = correlate(results.metrics, results.evaluation)
    table.attrs |= results.metrics.attrs
    return (
        table
        if hue in table
        else table.assign(**{hue: table["run"].map(by_run(results.metrics, hue))})
    )


OF_TEXT: dict[str, GalleryFigure] = {
    **default_features("block"),
    "features-against-weights": GalleryFigure(
        lambda r, hue: features_against_weights(r.metrics, r.representations, hue=hue),
        lambda r: has_features_of_weights(r.metrics, r.representations),
        "weights and features of blocks of a run at the same step",
        "weight",
        title="PER of the features after each block against that of its weights",
    ),
    **{
        f"input-energy-{PLURALS[component]}": figure_of_energies(component, PLURALS[component])
        for component in ("weight", "update", "adapter")
    },
}
"""Figures of features, which are of one text."""
FIGURES: dict[str, GalleryFigure] = {
    "loss": GalleryFigure(
        lambda r, hue: losses(r.training, runs=_names(r, r.training, hue), hue=hue),
        lambda r: has_loss(r.training),
        "logged training loss",
        table=attrgetter("training"),
    ),
    "learning-rate": GalleryFigure(
        lambda r, hue: learning_rates(r.training, runs=_names(r, r.training, hue), hue=hue),
        lambda r: has_learning_rate(r.training),
        "logged learning rate",
    ),
    **_default("weight", PER, KAPPA, MAP, HALVES),
    "condition-numbers-90-weights": _of_matrices(
        "condition_number_90",
        "weight",
        lambda r, hue: condition_number(r.metrics, column="condition_number_90", hue=hue),
    ),
    "tail-index-weights": _of_matrices(
        "tail_index", "weight", lambda r, hue: tail_index(r.metrics, hue=hue), RESOLVED
    ),
    "outliers-weights": _of_matrices(
        "outliers", "weight", lambda r, hue: outliers(r.metrics, hue=hue), RESOLVED
    ),
    "depth-per-weights": GalleryFigure(
        lambda r, hue: depth_profiles(r.metrics, hue=hue),
        lambda r: has_depth(r.metrics, "weight"),
        "weights in three layers or more",
        "weight",
    ),
    "overlap-weights": _of_subspaces(
        "overlap", "weight", lambda table, hue: overlaps(table, hue=hue)
    ),
    "update-energy-weights": _of_subspaces(
        "update_energy",
        "weight",
        lambda table, hue: overlaps(table, measure="update_energy", hue=hue),
    ),
    "intruders-weights": _of_subspaces(
        "intruders", "weight", lambda table, hue: intruders(table, hue=hue)
    ),
    "intruders-weights-since-first": _of_subspaces(
        "intruders", "weight", lambda table, hue: intruders(table, against="first", hue=hue)
    ),
    **figures_of("update"),
    **_default("cumulative_update", PER, MAP),
    **{
        name: replace(_from(figure, _alone), drawn_from="adapters alone")
        for name, figure in _default("adapter", PER, KAPPA, MAP).items()
    },
    **_default("gradient", PER),
    **_default("ov", PER),
    **_default("qk", PER),
    "merged-rank": _of_matrices(
        "numerical_rank",
        "merged_total",
        lambda r, hue: merged_ranks(r.metrics, hue=hue),
        "recorded merges",
    ),
    "merge-alignment": _of_subspaces(
        "overlap", "merge", lambda table, hue: merge_overlaps(table, hue=hue)
    ),
    "circuits-by-head": GalleryFigure(
        lambda r, hue: head_maps(r.metrics, hue=hue),
        lambda r: any(_has_value(r.metrics, name, "rank_utilisation") for name in ("ov", "qk")),
        "attention circuits",
        "ov",
    ),
    "adapter-ranks": GalleryFigure(
        lambda r, hue: adapter_ranks(r, hue=hue),
        lambda r: has_varied_ranks(r.metrics) or has_subspaces(r.training),
        "adapters of different ranks and no captured energy",
    ),
    "performance": GalleryFigure(
        lambda r, hue, p=False: performance(
            r.evaluation, runs=_names(r, r.evaluation, hue), hue=hue, published=p
        ),
        lambda r: bool(main_measures(r.evaluation)),
        "perplexity, loss or accuracy",
        table=attrgetter("evaluation"),
        has_published=lambda r: has_published_scores(r.evaluation),
    ),
    "blimp-phenomena": GalleryFigure(
        lambda r, hue, p=False: blimp_phenomena(
            r.evaluation, runs=_names(r, r.evaluation, hue), hue=hue, published=p
        ),
        lambda r: bool(phenomena(r.evaluation)),
        "accuracies by phenomenon",
        table=attrgetter("evaluation"),
        has_published=lambda r: has_published_scores(r.evaluation),
    ),
    "rank-and-performance": GalleryFigure(
        lambda r, hue: rank_and_performance(_correlated(r, hue), hue=hue),
        lambda r: has_component(r.metrics, "weight") and has_correlations(_correlated(r)),
        "weights and performance that vary at 4 common steps or more",
    ),
    "rank-against-performance": GalleryFigure(
        lambda r, hue: rank_against_performance(r.metrics, r.evaluation, hue=hue),
        lambda r: has_run_points(r.metrics, r.evaluation),
        "weights and performance of 4 runs or more",
        "weight",
    ),
    **OF_TEXT,
}
"""Figures of the results by file name."""
