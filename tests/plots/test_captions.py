"""A caption says what the figure says: its axes, runs, lines, bands, and what was left out."""

from __future__ import annotations

import re
import string
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rankscope import plots
from rankscope.plots.captions import Caption, caption_of, title_of
from rankscope.plots.gallery import selected
from rankscope.plots.panel import Panel
from rankscope.plots.style import series_styles
from rankscope.results.figure_source import FigureSource
from rankscope.results.results import Results
from rankscope.statistics.markup import latex, literal, plain_text
from tests.plots.conftest import SyntheticResults

NOTHING = FigureSource({}, {}, {}, {})


def caption(results: SyntheticResults | Results, name: str, source: FigureSource = NOTHING) -> str:
    known = plots.FIGURES[name]
    drawn = known.with_caption(name, results, source)  # type: ignore[arg-type]
    assert drawn is not None
    return str(drawn[1])


def of_roles(results: SyntheticResults, *roles: str) -> SyntheticResults:
    table = results.metrics
    return SyntheticResults(
        table[table["role"].isin(roles)],
        results.training,
        results.all_spectra,
        results.evaluation,
        results.subspaces,
    )


def test_it_names_what_is_drawn(results: SyntheticResults) -> None:
    text = caption(of_roles(results, "q", "v"), "per-weights")
    assert text.startswith("PER of weights. Vertical: PER = effective rank / min(m, n); ")
    for sentence in (
        "horizontal: step.",
        "Panels: q 64×64, v 32×64.",
        "Runs: full, relora.",
        "Line: mean over layers.",
        "Band: min to max over layers.",
        "Thin dotted line: Gaussian matrix.",
    ):
        assert sentence in text


def test_every_entry_of_the_legend_is_in_it(results: SyntheticResults) -> None:
    known = plots.FIGURES["per-updates"]
    chosen = of_roles(results, "v")
    figure = known(chosen)  # type: ignore[arg-type]
    assert figure is not None
    (legend,) = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    text = caption(chosen, "per-updates")
    labels = [entry.get_text() for entry in legend.get_texts()]
    assert len(labels) > 4 and all(" ".join(label.split()) in text for label in labels)


def test_matrices_without_a_rank_are_counted_as_in_the_table(results: SyntheticResults) -> None:
    chosen = of_roles(results, "v")
    updates = chosen.metrics.query("component == 'update'")
    without = int((updates["status"] != "ok").sum())
    assert without == 3  # one window of relora, in every layer
    text = caption(chosen, "per-updates")
    assert f"Of {len(updates)} matrices at all steps, {without} have no rank (zero: 3)." in text
    assert "have no rank" not in caption(chosen, "per-weights")


def test_runs_that_the_figure_leaves_out_are_not_in_it() -> None:
    figure, ax = plt.subplots()
    Panel(ax, series_styles(["full", "relora"])).series("relora")
    rows = pd.DataFrame({"run": ["full", "relora"]})
    made = caption_of(figure, "per-weights", rows, component=None, source=NOTHING)
    assert made.drawn == ("Runs: relora.",)


@pytest.mark.slow
def test_replicates_are_listed_by_group(results: SyntheticResults) -> None:
    table = of_roles(results, "v").metrics.query("component == 'weight'")
    copies = [table.assign(run=table["run"] + f"-{seed}") for seed in (0, 1)]
    every = pd.concat(copies, ignore_index=True)
    chosen = of_roles(results, "v")
    object.__setattr__(chosen, "metrics", every)
    for name in ("training", "evaluation", "subspaces"):
        object.__setattr__(chosen, name, getattr(chosen, name).iloc[:0])
    grouped = selected(chosen, group=r"(.*)-\d")  # type: ignore[arg-type]
    for name in ("per-weights", "heatmap-per-weights"):
        text = caption(grouped, name)
        assert "Runs: full (full-0, full-1); relora (relora-0, relora-1)." in text


def test_the_source_is_named_at_the_end(results: SyntheticResults) -> None:
    source = FigureSource({}, {}, {"rankscope": "1.2"}, {"metrics.parquet": "abc"})
    text = caption(of_roles(results, "v"), "per-weights", source)
    assert text.endswith("Drawn from metrics.parquet abc, computed with rankscope 1.2.")


def test_a_line_is_called_what_it_looks_like() -> None:
    figure, ax = plt.subplots()
    panel = Panel(ax, {})
    panel.line("whole")
    panel.line("dashes", (0, (6, 2)), width=0.6)
    panel.line("dots", (0, (1, 1)))
    panel.line("dash and dot", (0, (5, 1.5, 1, 1.5)))
    panel.line("behind", width=5)
    panel.line("logged", alpha=0.3)
    panel.mark("doubtful")
    panel.mark("sure", hollow=False)
    panel.mark("more", r"$\uparrow$")
    panel.band("range")
    panel.note("left out: 3")
    made = caption_of(figure, "per-weights", pd.DataFrame(), component=None, source=NOTHING)
    assert made.drawn == (
        *("Line: whole.", "Thin dashed line: dashes.", "Dotted line: dots."),
        *("Dash-dotted line: dash and dot.", "Wide line: behind.", "Pale line: logged."),
        *("Hollow marker: doubtful.", "Marker: sure.", "Arrow: more.", "Band: range."),
        "Left out: 3.",
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("per-weights", "PER of weights"),
        ("heatmap-per-ov-updates", "PER of OV updates, by layer and step"),
        ("condition-numbers-updates", "Condition numbers of updates"),
        ("per-ov", "PER of OV circuits"),
        ("halves-per-qk", "PER of QK circuits, by half of the layers"),
        ("update-histograms", "Update spectra as histograms"),
        ("intruders-weights", "Intruders of weights since the previous checkpoint"),
        ("merged-rank", "Rank of the sum of merges"),
        ("loss", "Loss"),
    ],
)
def test_titles_are_words(name: str, title: str) -> None:
    assert title_of(name) == title


def test_a_name_that_its_title_breaks_within_a_word_is_whole() -> None:
    figure, axes = plt.subplots(1, 2)
    for ax, title in zip(axes, ("published\n-0", "a b"), strict=True):
        ax.set_title(title)
    rows = pd.DataFrame({"run": ["published-0", "a b", "ab"]})
    made = caption_of(figure, "heatmap-per-weights", rows, component=None, source=NOTHING)
    assert "Panels: published-0, a b." in made.drawn


def test_every_figure_has_a_title_of_its_own() -> None:
    titles = [title_of(name) for name in plots.FIGURES]
    assert len({*titles}) == len(titles)
    assert not any("-" in title or "_" in title for title in titles)


def unescaped(text: str) -> set[str]:
    """Characters that LaTeX would not print as they are, outside formulas and after no escape."""
    text = re.sub(r"\\(?:text[a-z]+|ldots)\{\}|\\[&%$#_{}]", "", text)
    text = re.sub(r"\$[^$]*\$", "", text)
    return {*text} & {*r"\{}&%$#_~^<>|"}


@pytest.mark.parametrize("name", ["per-weights", "condition-numbers-updates", "merged-rank"])
@pytest.mark.slow
def test_latex_prints_it_as_it_is(results: SyntheticResults, name: str) -> None:
    text = latex(caption(of_roles(results, "q"), name))
    assert not unescaped(text) and text.isascii()


def test_a_hostile_name_is_text_in_latex() -> None:
    name = r"a\input{/etc/passwd}$x$ 50% {#1} ~^_&<|>"
    text = latex(literal(name, limit=200))
    assert not unescaped(text)
    printed = re.sub(r"\$([<>|])\$", r"\1", text).replace(r"\textbackslash{}", "\\")
    printed = printed.replace(r"\textasciitilde{}", "~").replace(r"\textasciicircum{}", "^")
    assert re.sub(r"\\([{}$%#_&])", r"\1", printed) == name


def test_formulas_are_letters_in_plain_text() -> None:
    assert plain_text(r"$\kappa_{90} = \sigma_1/\sigma_{\lceil 0.9q\rceil}$") == (
        "κ_90 = σ_1/σ_⌈0.9q⌉"
    )
    assert plain_text(r"costs \$5 and" + "\n" + r"\$6") == "costs $5 and $6"
    assert {*plain_text(r"$\|\Delta W\|_F/\|W\|_F$")} <= {*string.ascii_letters, *"ΔW‖_/ "}


def test_the_description_has_no_source() -> None:
    made = Caption("PER", (r"Line: $\kappa$.",), "Drawn from here.")
    assert made.description == "PER. Line: κ."
    assert str(made) == r"PER. Line: $\kappa$. Drawn from here."


def test_it_is_written_beside_the_figure(tmp_path: Path) -> None:
    figure, _ = plt.subplots()
    paths = plots.save_figure(figure, tmp_path, "f", caption="10 % of a_b")
    assert [path.name for path in paths] == ["f.pdf", "f.png", "f.tex"]
    assert paths[-1].read_text(encoding="utf-8") == "10 \\% of a\\_b%\n"
