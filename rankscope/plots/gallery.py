"""`FIGURES`: every figure by its name, drawn from a folder of results."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial, reduce
from operator import attrgetter, or_

import pandas as pd
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError, closest_first
from rankscope.plots.adapter_cycles import adapter_ranks
from rankscope.plots.chosen_results import ChosenResults, Study
from rankscope.plots.circuit_maps import head_maps
from rankscope.plots.correlations import has_correlations, rank_and_performance
from rankscope.plots.decay import update_spectra
from rankscope.plots.depth_panels import depth_profiles
from rankscope.plots.energy_lines import figure_of_energies
from rankscope.plots.evaluation_curves import blimp_phenomena, performance
from rankscope.plots.feature_figures import default_features, figures_of_features
from rankscope.plots.feature_scatter import features_against_weights
from rankscope.plots.gallery_figure import PLACES, GalleryFigure, with_tables
from rankscope.plots.half_panels import by_half
from rankscope.plots.histograms import update_histograms
from rankscope.plots.intruder_maps import intruders
from rankscope.plots.maps import heatmaps
from rankscope.plots.merge_alignment import merge_overlaps
from rankscope.plots.role_panels import condition_number, outliers, per, tail_index
from rankscope.plots.run_scatter import rank_against_performance
from rankscope.plots.staircases import merged_ranks
from rankscope.plots.subspace_lines import overlaps
from rankscope.plots.training_curves import learning_rates, losses
from rankscope.results.results import STORED, Results
from rankscope.statistics.correlation import correlate
from rankscope.statistics.cycle_ranks import has_varied_ranks
from rankscope.statistics.depth import LEAST_LAYERS
from rankscope.statistics.feature_rows import has_features_of_weights, kinds_of_places
from rankscope.statistics.logged_series import is_logged
from rankscope.statistics.markup import literal
from rankscope.statistics.performance_measures import has_run_points, main_measures, phenomena
from rankscope.statistics.published_rows import has_published_scores, has_published_spectra
from rankscope.statistics.replicates import all_runs, groups_of
from rankscope.statistics.row_choice import by_run, distinct, most_layers, series_names
from rankscope.statistics.subspace_means import Measure, has_comparisons

PLURALS = {"weight": "weights", "update": "updates", "adapter": "adapters", "merge": "merges"}
PLURALS |= {"cumulative_update": "cumulative-updates", "gradient": "gradients"}
PLURALS |= {"merged_total": "merged-totals", "ov_update": "ov-updates", "factor": "factors"}
PLURALS |= {"qk_update": "qk-updates"}
COMPARED = ("similarities", "input_energies")
TABLES = ("metrics", "evaluation", "training", "subspaces", "representations", *COMPARED)
# Columns that a figure of a metric takes besides: what qualifies it, and what chance gives.
COMPANIONS = {
    "per": ("per_error", "per_resolved", "per_gaussian", "noise_share"),
    "condition_number": ("condition_number_status",),
    "condition_number_r": ("numerical_rank",),
    "tail_index": ("tail_index_error", "tail_index_gaussian"),
}
BOTH = tuple(
    name for column in ("per", "condition_number") for name in (column, *COMPANIONS[column])
)
MERGED = ("name", "effective_rank", "numerical_rank", "per", *COMPANIONS["per"])
PER, KAPPA, MAP, HALVES = "per-", "condition-numbers-", "heatmap-", "halves-"
IN_HALVES = 4  # layers that have two in each half
RESOLVED = "weights above the noise floor"


def figures_of(component: str) -> dict[str, GalleryFigure]:
    """The figures of one component of the matrices, whatever it is, by name."""
    plural, words = PLURALS.get(component, component), component.replace("_", "-")
    kappa = "condition_number" if component in ("weight", "base") else "condition_number_r"

    def over_time(column: str, draw: Callable[..., Figure]) -> GalleryFigure:
        return replace(
            _of_matrices(column, component, draw),
            draw=lambda r, hue, p=False: draw(r.metrics, component, hue=hue, published=p),
            has_published=lambda r: has_published_spectra(_sizes(r, component), column, component),
        )

    def in_halves(column: str) -> GalleryFigure:
        made = _of_matrices(column, component, partial(by_half, column=column, component=component))
        return replace(
            made,
            has_data=lambda r: made.has_data(r) and _are_in_halves(r, component),
            drawn_from=f"{made.drawn_from} in four layers or more at several steps",
        )

    return {
        f"{PER}{plural}": over_time("per", per),
        f"{KAPPA}{plural}": over_time(kappa, condition_number),
        f"{HALVES}{PER}{plural}": in_halves("per"),
        f"{HALVES}{KAPPA}{plural}": in_halves(kappa),
        f"{words}-histograms": _of_spectra(component, update_histograms),
        f"{words}-spectra": _of_spectra(component, update_spectra),
        f"{MAP}{PER}{plural}": _of_matrices(
            "per", component, partial(heatmaps, component=component)
        ),
    }


def _of_matrices(
    column: str, component: str, draw: Callable[..., Figure], drawn_from: str = ""
) -> GalleryFigure:
    """A figure of the metrics of one component; ``drawn_from`` is its name if not given."""
    plural = PLURALS.get(component, component).replace("-", " ")
    return GalleryFigure(
        lambda r, hue: draw(r.metrics, hue=hue),
        lambda r: _has_value(r, component, column),
        drawn_from or plural,
        component,
        columns=(column, *COMPANIONS.get(column, ())),
        components=["adapter"] if component == "update" else (),
    )


def _of_spectra(component: str, draw: Callable[..., Figure]) -> GalleryFigure:
    return replace(
        _of_matrices("per", component, draw),
        draw=lambda r, hue: draw(r, component=component, hue=hue),
        columns=(*STORED, "spectral_norm"),
    )


def _has_value(results: Results, component: str, column: str) -> bool:
    return bool(results.rows([column], component=component)[column].notna().any())


def _are_in_halves(results: Results, component: str) -> bool:
    """Whether each half has several layers, and lines, whose dashes tell the halves apart."""
    steps = results.distinct(["step", "component"], component=component)["step"]
    return _most_layers(results, component) >= IN_HALVES and steps.nunique() > 1


def _most_layers(results: Results, component: str) -> int:
    return most_layers(
        results.distinct(["run", "layer", "component"], component=component), component
    )


def _sizes(results: Results, component: str) -> pd.DataFrame:
    return results.distinct(["run", "role", "component", "rows", "cols"], component=component)


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
    is_in_memory = not isinstance(results, Results) or "metrics" in vars(results) or results.own
    tables = {name: getattr(results, name) for name in TABLES if name != "metrics" or is_in_memory}
    tables = {name: table for name, table in tables.items() if "run" in table}
    measured = results.distinct(["run", "role"])
    there = dict.fromkeys(run for table in (measured, *tables.values()) for run in all_runs(table))
    _check("run", runs, [there])
    _check("role", roles, [measured["role"].unique()])
    groups = None if group is None else groups_of(there, group)
    study = Study([*there], groups, tuple(runs), tuple(roles))
    chosen = results if is_in_memory else ChosenResults(results.path, source=results, study=study)
    return with_tables(chosen, **{name: study.chosen(table) for name, table in tables.items()})


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
    there = distinct(results.distinct(["component"]), "component")
    _check("component", components, [there])
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
    spectra = with_tables(results, **{name: getattr(results, name).iloc[:0] for name in others})
    shown = {f.component for f in FIGURES.values() if f.component in there and f.has_data(spectra)}
    rest = (_default(str(component), PER) for component in there if component not in shown)
    of_text = reduce(or_, map(default_features, kinds), OF_TEXT)
    return reduce(or_, rest, FIGURES) | of_text | _of_other_texts(of_text, results)


def _check(what: str, names: Collection[str], known: Iterable[Iterable[object]]) -> None:
    there = dict.fromkeys(str(name) for column in known for name in column)
    for name in names:
        if name not in there:
            listing = closest_first(name, there)
            raise WrongSettingError(f"unknown {what} {name!r}: choose from {listing}")


def _default(component: str, *kinds: str) -> dict[str, GalleryFigure]:
    """The figures of a component that are drawn by default."""
    return {n: figure for n, figure in figures_of(component).items() if n.startswith(kinds)}


def _without_weights(results: Results) -> list[str]:
    """Runs without weights: of others, figures of adapters would show both."""
    every = results.distinct(["run"])["run"]
    whole = results.distinct(["run"], component="weight")["run"].unique()
    return [run for run in every if run not in whole]


def _if_alone(figure: GalleryFigure) -> GalleryFigure:
    def has_data(results: Results) -> bool:
        runs = _without_weights(results)
        rows = results.rows(["run", "component", *figure.columns], component="adapter", run=runs)
        return figure.has_data(with_tables(results, metrics=rows))

    return replace(figure, has_data=has_data, of_runs=_without_weights, drawn_from="adapters alone")


def _cycles(results: Results) -> pd.DataFrame:
    columns = ["run", "step", "role", "component", "max_rank"]
    return results.rows(columns, component=["adapter", "merge"])


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
                words = (f"{part} tokens" if part == probe[1] else literal(part) for part in parts)
                title = ", ".join([figure.title, *words])
                end = re.sub(r"[^\w.]+", "-", "-".join(parts))
                made[f"{name}-{end}"] = replace(_from(figure, chosen), title=title)
    return made


def _of_text(results: Results, probe: tuple[str, str]) -> Results:
    """Results whose features are those of one text, and of all or the last tokens of windows."""
    tables = {name: getattr(results, name) for name in ("representations", *COMPARED)}
    text, features = probe
    return with_tables(
        results,
        **{
            name: table[(table["text"] == text) & (table["features"] == features)]
            for name, table in tables.items()
        },
    )


def _from(figure: GalleryFigure, chosen: Callable[[Results], Results]) -> GalleryFigure:
    """The figure of a part of the results."""
    table = figure.table
    return replace(
        figure,
        draw=lambda results, *hue: figure.draw(chosen(results), *hue),
        has_data=lambda results: figure.has_data(chosen(results)),
        table=table and (lambda results: table(chosen(results))),
    )


def _of_subspaces(measure: Measure, component: str, draw: Callable[..., Figure]) -> GalleryFigure:
    return GalleryFigure(
        lambda results, hue: draw(results.subspaces, hue=hue),
        lambda results: has_comparisons(results.subspaces, measure, component),
        f"subspaces of {PLURALS[component]}, which `analyze` measures if `subspaces` is set",
        component,
        table=attrgetter("subspaces"),
    )


def _names(results: Results, table: pd.DataFrame, hue: str) -> list[object]:
    """Names of all series that were analysed or are in the table, to colour them alike."""
    return [*{*series_names(results.metrics, hue), *series_names(table, hue)}]


def _correlated(results: Results, hue: str = "run") -> pd.DataFrame:
    """Correlations of `results` narrowed to the weights."""
    table = correlate(results.metrics, results.evaluation)
    table.attrs |= results.metrics.attrs
    return (
        table
        if hue in table
        else table.assign(**{hue: table["run"].map(by_run(results.metrics, hue))})
    )


def _has_correlations(results: Results) -> bool:
    if results.evaluation.empty:
        return False
    weights = results.rows([*PLACES, *BOTH], component="weight")
    return bool(len(weights)) and has_correlations(
        _correlated(with_tables(results, metrics=weights))
    )


OF_TEXT: dict[str, GalleryFigure] = {
    **default_features("block"),
    "features-against-weights": GalleryFigure(
        lambda r, hue: features_against_weights(r.metrics, r.representations, hue=hue),
        lambda r: has_features_of_weights(
            r.rows([*PLACES, "per"], component="weight"), r.representations
        ),
        "weights and features of blocks of a run at the same step",
        "weight",
        columns=["per", *COMPANIONS["per"]],
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
        lambda r: is_logged(r.training, "loss"),
        "logged training loss",
        table=attrgetter("training"),
    ),
    "learning-rate": GalleryFigure(
        lambda r, hue: learning_rates(r.training, runs=_names(r, r.training, hue), hue=hue),
        lambda r: is_logged(r.training, "learning_rate"),
        "logged learning rate",
        table=attrgetter("training"),
    ),
    **_default("weight", PER, KAPPA, MAP, HALVES),
    "condition-numbers-90-weights": _of_matrices(
        "condition_number_90", "weight", partial(condition_number, column="condition_number_90")
    ),
    "tail-index-weights": _of_matrices("tail_index", "weight", tail_index, RESOLVED),
    "outliers-weights": _of_matrices("outliers", "weight", outliers, RESOLVED),
    "depth-per-weights": replace(
        _of_matrices("per", "weight", depth_profiles, "weights in three layers or more"),
        has_data=lambda r: _most_layers(r, "weight") >= LEAST_LAYERS,
    ),
    "overlap-weights": _of_subspaces("overlap", "weight", overlaps),
    "update-energy-weights": _of_subspaces(
        "update_energy", "weight", partial(overlaps, measure="update_energy")
    ),
    "intruders-weights": _of_subspaces("intruders", "weight", intruders),
    "intruders-weights-since-first": _of_subspaces(
        "intruders", "weight", partial(intruders, against="first")
    ),
    **figures_of("update"),
    **_default("cumulative_update", PER, MAP),
    **{name: _if_alone(figure) for name, figure in _default("adapter", PER, KAPPA, MAP).items()},
    **_default("gradient", PER),
    **_default("ov", PER),
    **_default("qk", PER),
    "merged-rank": replace(
        _of_matrices("numerical_rank", "merged_total", merged_ranks, "recorded merges"),
        columns=MERGED,
        components=None,  # its lines go on to the last step that anything was measured at
    ),
    "merge-alignment": _of_subspaces("overlap", "merge", merge_overlaps),
    "circuits-by-head": replace(
        _of_matrices("rank_utilisation", "ov", head_maps, "attention circuits"),
        has_data=lambda r: any(_has_value(r, name, "rank_utilisation") for name in ("ov", "qk")),
        components=["qk"],
    ),
    "adapter-ranks": GalleryFigure(
        lambda r, hue: adapter_ranks(r, hue=hue),
        lambda r: has_varied_ranks(_cycles(r)) or is_logged(r.training, "captured_energy"),
        "adapters of different ranks and no captured energy",
        columns=MERGED,
        components=None,
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
        _has_correlations,
        "weights and performance that vary at 4 common steps or more",
        columns=BOTH,
        components=["weight"],
    ),
    "rank-against-performance": GalleryFigure(
        lambda r, hue: rank_against_performance(r.metrics, r.evaluation, hue=hue),
        lambda r: has_run_points(
            r.distinct(["run", "component"], component="weight"), r.evaluation
        ),
        "weights and performance of 4 runs or more",
        "weight",
        columns=["per", *COMPANIONS["per"]],
    ),
    **OF_TEXT,
}
"""Figures of the results by file name."""
