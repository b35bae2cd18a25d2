"""`caption_of`: what a figure shows, in the words of its own labels and legend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from rankscope.plots.label_texts import legend_names
from rankscope.plots.panel import entries, is_explanation
from rankscope.results.figure_source import FigureSource
from rankscope.statistics.markup import literal, plain_text
from rankscope.statistics.replicates import RUN_GROUP
from rankscope.statistics.row_choice import series_names

MOST_LISTED = 24
LINES = {"-": "line", ":": "dotted line", "--": "dashed line", "-.": "dash-dotted line"}
MARKS = {r"$\uparrow$": "arrow", ".": "small marker", "|": "tick"}
SPELLINGS = {"per": "PER", "blimp": "BLiMP", "ov": "OV", "qk": "QK"}
CIRCUITS = ("ov", "qk")
# By names of figures; of several that fit, the first is taken.
TITLES = {
    "condition-numbers-90-{}": "Condition numbers of {}, without the smallest tenth of the values",
    "condition-numbers-{}": "Condition numbers of {}",
    "halves-condition-numbers-{}": "Condition numbers of {}, by half of the layers",
    "halves-per-{}": "PER of {}, by half of the layers",
    "heatmap-per-{}": "PER of {}, by layer and step",
    "depth-per-{}": "PER of {}, by depth",
    "per-{}": "PER of {}",
    "overlap-{}": "Overlap of leading subspaces of {}",
    "update-energy-{}": "Energy of updates in leading subspaces of {}",
    "intruders-{}-since-first": "Intruders of {} since the first checkpoint",
    "intruders-{}": "Intruders of {} since the previous checkpoint",
    "tail-index-{}": "Tail index of {}",
    "outliers-{}": "Outliers of {}",
    "{}-histograms": "{} spectra as histograms",
    "merged-rank": "Rank of the sum of merges",
    "merge-alignment": "Overlap of successive merges",
    "circuits-by-head": "Attention circuits by head",
}


@dataclass(frozen=True)
class Caption:
    r"""What to write under a figure, in the markup of its labels: ``$…$`` is mathematics.

    Attributes
    ----------
    title
        What is drawn, in a few words.
    drawn
        Sentences on axes, runs, lines, bands and marks, and on what was left out.
    source
        The versions and the digests of the tables that it was drawn from.
    """

    title: str
    drawn: tuple[str, ...]
    source: str = ""

    @property
    def description(self) -> str:
        """Everything but the source, as plain text."""
        return plain_text(" ".join((f"{self.title}.", *self.drawn)))

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.title}.", *self.drawn, self.source)))


def caption_of(
    figure: Figure, name: str, rows: pd.DataFrame, *, component: str | None, source: FigureSource
) -> Caption:
    """The caption of a figure that was drawn.

    Parameters
    ----------
    figure
        Its labels, titles and legend entries are what the caption says.
    name
        Name of the figure in `FIGURES`, which becomes the title.
    rows
        Rows of the table that it was drawn from.
    component
        The component whose matrices it shows, if it is of matrices.
    source
        What the records of the results say.
    """
    sentences = [
        *_axes_sentences(figure, _names(rows)),
        *_runs_sentences(figure, rows),
        *_legend_sentences(figure),
        *_left_out(rows, component),
        *map(_sentence, source.remarks(runs_of(rows))),
    ]
    return Caption(title_of(name), tuple(filter(None, sentences)), source.identity())


def runs_of(rows: pd.DataFrame) -> list[str]:
    """Names of the runs in rows of a table."""
    return sorted(rows["run"].dropna().astype(str).unique()) if "run" in rows else []


def title_of(name: str) -> str:
    """The name of a figure of the gallery as a title, in words.

    Examples
    --------
    >>> title_of("heatmap-per-cumulative-updates")
    'PER of cumulative updates, by layer and step'
    >>> title_of("intruders-weights-since-first")
    'Intruders of weights since the first checkpoint'
    """
    shown, title = literal(name, limit=100), "{}"
    for kind, words in TITLES.items():
        start, _, end = kind.partition("{}")
        if shown == kind or ("{}" in kind and shown.startswith(start) and shown.endswith(end)):
            shown, title = shown.removeprefix(start).removesuffix(end), words
            break
    parts = shown.split("-")
    if "of {}" in title and parts[0] in CIRCUITS and parts[-1] != "updates":
        parts.append("circuits")
    text = title.format(" ".join(SPELLINGS.get(part, part) for part in parts))
    return text[:1].upper() + text[1:]


def _names(rows: pd.DataFrame) -> set[str]:
    """Names of the runs, and of groups of them, as figures show them."""
    columns = [column for column in (RUN_GROUP, "run") if column in rows]
    return {literal(name) for column in columns for name in rows[column].dropna().unique()}


def _whole(title: str, names: set[str]) -> str:
    """The one name that a title breaks within a word; any other title as it is."""
    letters = "".join(title.split())
    found = {name for name in names if "".join(name.split()) == letters}
    return title if title in names or len(found) != 1 else found.pop()


def _axes_sentences(figure: Figure, names: set[str]) -> Iterator[str]:
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>" and ax.axison]
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    rows = _distinct(ax.get_ylabel() for ax in panels)
    vertical = figure.get_supylabel() or _listed(rows)
    across = figure.get_supxlabel() or _listed(_distinct(ax.get_xlabel() for ax in panels))
    yield _sentence("; ".join(filter(None, (_named("vertical", vertical),
                                            _named("horizontal", across)))))  # fmt: skip
    rows = rows if figure.get_supylabel() else []
    rows = _distinct([*rows, *_row_titles(panels)])
    columns = _distinct(ax.get_title() for ax in panels)
    rows, columns = ([_whole(title, names) for title in titles] for titles in (rows, columns))
    yield from (
        _sentence(_named(what, _listed(titles)))
        for what, titles in (("panels", columns), ("rows", rows))
        if titles
    )
    colours = _distinct(text for ax in bars for text in (ax.get_xlabel(), ax.get_ylabel()))
    if colours:
        yield _sentence(_named("colour", _listed(colours)))


def _row_titles(panels: Iterable[Axes]) -> Iterator[str]:
    """Texts to the right of panels, which `rankscope.plots.grid.row_title` puts there."""
    for ax in panels:
        for text in ax.texts:
            if isinstance(text, Annotation) and text.xycoords == "axes fraction":
                yield text.get_text()


def _runs_sentences(figure: Figure, rows: pd.DataFrame) -> Iterator[str]:
    """The runs, or the groups of them, that are in the rows and in the legend if it has any."""
    handles, labels = entries(figure.axes)
    series = {
        label.strip()
        for label, handle in zip(labels, handles, strict=True)
        if not is_explanation(handle)
    }
    if "run" not in rows or rows.empty:
        return
    by = RUN_GROUP if RUN_GROUP in rows else "run"
    groups = {str(name): runs_of(group) for name, group in rows.groupby(by, sort=True)}
    entered = legend_names(map(str, series_names(rows, by)))
    drawn = {n: runs for n, runs in groups.items() if not series or entered[n].strip() in series}
    texts = [
        literal(name) if runs == [name] else f"{literal(name)} ({_listed(map(literal, runs))})"
        for name, runs in (drawn or groups).items()
    ]
    yield _sentence(_named("runs", _listed(texts)))


def _legend_sentences(figure: Figure) -> Iterator[str]:
    for handle, label in zip(*entries(figure.axes), strict=True):
        if is_explanation(handle):
            yield _sentence(_named(_look(handle), label))


def _look(handle: Artist) -> str:
    """What a legend shows before a text: "dotted line", say; nothing for a remark."""
    if not isinstance(handle, Line2D):
        return "band"
    marker, line = handle.get_marker(), _line(handle)
    if marker in ("", "None", None):
        return line
    hollow = "hollow marker" if str(handle.get_markerfacecolor()) == "white" else "marker"
    return MARKS.get(str(marker), hollow)


def _line(handle: Line2D) -> str:
    width, dashes = handle.get_linewidth(), str(handle.get_linestyle())
    # matplotlib calls all dashes of one's own "--".
    _, pattern = getattr(handle, "_unscaled_dash_pattern", (0, None))
    if dashes == "--" and pattern is not None:
        dashes = "-." if len(pattern) == 4 else ":" if pattern[0] <= 1 else "--"
    if dashes not in LINES:
        return ""
    is_pale = (handle.get_alpha() or 1) < 1
    adjectives = [("pale", is_pale), ("thin", width < 1), ("wide", width > 2)]
    return next((f"{word} " for word, holds in adjectives if holds), "") + LINES[dashes]


def _left_out(rows: pd.DataFrame, component: str | None) -> Iterator[str]:
    """How many matrices have no spectrum, and why, of all that may be in the figure."""
    if component is None or not {"status", "effective_rank"} <= {*rows}:
        return
    without = rows.loc[rows["effective_rank"].isna(), "status"]
    if len(without):
        counts = without.value_counts().sort_index()
        why = _listed(f"{status}: {count}" for status, count in counts.items())
        yield f"Of {len(rows)} matrices at all steps, {len(without)} have no rank ({why})."


def _named(what: str, text: str) -> str:
    text = _flat(text)
    return f"{what}: {text}" if what and text else text


def _sentence(text: str) -> str:
    """The text as a sentence; its first letter stays where it may be a symbol or a name."""
    first = text[:1].upper() + text[1:] if re.match(r"[a-z]{2}", text) else text
    return f"{first}." if first else ""


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(map(_flat, texts)) if text]


def _flat(text: str) -> str:
    """A label on one line: names that were broken after their punctuation are whole again."""
    return " ".join(re.sub(r"(?<=\S[-_/.])\n", "", text).split())


def _listed(texts: Iterable[str]) -> str:
    every = list(texts)
    more = [f"and {len(every) - MOST_LISTED} others"] if len(every) > MOST_LISTED else []
    return ("; " if any(", " in text for text in every) else ", ").join(
        [*every[:MOST_LISTED], *more]
    )
