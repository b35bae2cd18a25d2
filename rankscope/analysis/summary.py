"""The answer in brief: how PER and condition numbers moved, and what stands out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, mode
from typing import TypeVar

from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.run import listed
from rankscope.metrics import noise_matters
from rankscope.results.measure import Row

Key = TypeVar("Key")
IDENTITY = ("component", "run", "role", "window")
WINDOWS = {
    "": "",
    "within": " within a cycle",
    "cycle": " of a cycle",
    "across": " across restarts",
}
MOST_OF_A_FALL = 0.8  # share of a fall in PER; the step that reaches it dates the fall


@dataclass(frozen=True)
class Line:
    """One component and role of a run, from its first step to its last; all layers together.

    Changes within a cycle, of whole cycles and across restarts are different objects on separate
    lines: ``window`` says which.

    ``steps`` are the first and the last, which may be the same. PER and effective rank are means
    over layers; rank and condition numbers are medians. The condition number is κ for weights,
    ``is_bound`` where it is only a lower bound; for all others it is κ over the rank, the only one
    that a matrix of low rank has.
    """

    run: str
    component: str
    role: str
    window: str
    steps: tuple[int, int]
    matrices: int
    per: tuple[float, float]
    effective_rank: tuple[float, float]
    rank: tuple[float | None, float | None]
    max_rank: float | None
    condition: tuple[float | None, float | None]
    is_bound: tuple[bool, bool]


@dataclass(frozen=True)
class Summary:
    """Lines for a table, and findings in words, the most striking first."""

    lines: list[Line]
    findings: list[str]


def summarise(
    rows: Sequence[Row],
    breaks: Mapping[str, int] | None = None,
    units: Mapping[str, str] | None = None,
) -> Summary:
    """Summarise the rows of an analysis; rows without a rank do not count.

    Nothing is compared across a break: where the series of a run breaks, only the rows from the
    last break on are summarised.

    Parameters
    ----------
    breaks
        The step of each run's last break, by run name.
    units
        What the steps of each run count, by run name; optimizer steps if missing.
    """
    starts, named = breaks or {}, units or {}
    measured = [row for row in rows if row["effective_rank"] is not None]
    ranked = [row for row in measured if row["step"] >= starts.get(row["run"], row["step"])]
    groups = _grouped(ranked, lambda row: tuple(row[name] or "" for name in IDENTITY))
    lines = [_line(group) for group in groups.values()]
    lines.sort(key=lambda line: ROLES.index(line.role))
    broken = [
        f"{run}: the series breaks before {named.get(run, 'step')} {step}, and is summarised from "
        "there on"
        for run, step in starts.items()
    ]
    findings = [*broken, *_falls(ranked, named), *_update_ranks(ranked), *_zeros(rows, named)]
    return Summary(lines, [*findings, *_limits(rows)])


def _grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _ends(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of the first step and those of the last."""
    first, last = (end(row["step"] for row in rows) for end in (min, max))
    return [r for r in rows if r["step"] == first], [r for r in rows if r["step"] == last]


def _line(rows: list[Row]) -> Line:
    first, last = ends = _ends(rows)
    conditions = [_condition(end) for end in ends]
    effective = [fmean(row["effective_rank"] for row in end) for end in ends]
    return Line(
        **{name: rows[0][name] or "" for name in IDENTITY},
        steps=(first[0]["step"], last[0]["step"]),
        matrices=len(last),
        per=(fmean(row["per"] for row in first), fmean(row["per"] for row in last)),
        effective_rank=(effective[0], effective[1]),
        rank=(_median(first, "numerical_rank"), _median(last, "numerical_rank")),
        max_rank=_median(last, "max_rank"),
        condition=(conditions[0][0], conditions[1][0]),
        is_bound=(conditions[0][1], conditions[1][1]),
    )


def _median(rows: list[Row], column: str) -> float | None:
    known = [row[column] for row in rows if row[column] is not None]
    return float(median(known)) if known else None


def _condition(rows: list[Row]) -> tuple[float | None, bool]:
    """Median condition number, and whether it is a lower bound."""
    if rows[0]["component"] != "weight":
        return _median(rows, "condition_number_r"), False
    middle = _median(rows, "condition_number")
    bounds = [r for r in rows if r["condition_number_status"] == "lower-bound"]
    return middle, middle is not None and any(r["condition_number"] <= middle for r in bounds)


def _falls(ranked: list[Row], units: Mapping[str, str]) -> list[str]:
    """The weight matrix of each run whose PER fell most, and when."""
    weights = [row for row in ranked if row["component"] == "weight"]
    findings = []
    for run, rows in _grouped(weights, lambda row: row["run"]).items():
        by_name = _grouped(rows, lambda row: row["name"])
        series = {name: some for name, some in by_name.items() if len(some) > 1}
        if not series:
            continue
        name, fallen = min(series.items(), key=lambda item: item[1][-1]["per"] - item[1][0]["per"])
        before, after = fallen[0]["per"], fallen[-1]["per"]
        if after - before < -0.01:
            means = [fmean(some[end]["per"] for some in series.values()) for end in (0, -1)]
            findings.append(
                f"{run}: PER of weights fell most in {name}, {before:.3f} → {after:.3f}"
                f"{_when(fallen, units.get(run, 'step'))}; "
                f"mean over matrices {means[0]:.3f} → {means[1]:.3f}"
            )
    return findings


def _when(fallen: list[Row], unit: str) -> str:
    """The step by which most of a fall had happened, where there are steps to choose from."""
    if len(fallen) < 3:
        return ""
    before, after = fallen[0]["per"], fallen[-1]["per"]
    low = before - MOST_OF_A_FALL * (before - after)
    step = next(row["step"] for row in fallen if row["per"] <= low)
    return f" ({100 * MOST_OF_A_FALL:.0f} % of it by {unit} {step})"


def _update_ranks(ranked: list[Row]) -> list[str]:
    """How much of their dimensions the updates of each run use at the end."""
    findings = []
    updates = [row for row in ranked if row["component"] == "update"]
    each = _grouped(updates, lambda row: row["run"]).values()
    ended = [row for rows in each for row in _ends(rows)[1]]
    for (run, window), last in _grouped(ended, lambda r: (r["run"], r["window"] or "")).items():
        dimensions = median(min(row["rows"], row["cols"]) for row in last)
        per = fmean(row["per"] for row in last)
        findings.append(
            f"{run}: updates of the last interval{WINDOWS[window]} have PER {per:.3f} and "
            f"rank {_median(last, 'numerical_rank') or 0:.0f} of {dimensions:.0f} (median)"
        )
    merged = [row for row in ranked if row["component"] == "merged_total"]
    for run, rows in _grouped(merged, lambda row: row["run"]).items():
        _, last = _ends(rows)
        count = len({row["step"] for row in rows})
        findings.append(
            f"{run}: after {count} merge{'s'[: count != 1]} their sum has rank "
            f"{_median(last, 'numerical_rank') or 0:.0f} and effective rank "
            f"{fmean(row['effective_rank'] for row in last):.1f}"
        )
    return findings


def _zeros(rows: Sequence[Row], units: Mapping[str, str]) -> list[str]:
    """Which matrices are zero, when, and why where that is known."""
    zero = [row for row in rows if row["status"] == "zero"]
    first = {run: min(r["step"] for r in own) for run, own in _grouped(rows, _run).items()}
    named = []
    for (run, component), own in _grouped(zero, lambda r: (r["run"], r["component"])).items():
        unit, steps = units.get(run, "step"), tuple(sorted({row["step"] for row in own}))
        why = ""
        if component == "adapter" and steps == (first[run],):
            why = ": adapters start with B = 0"
        elif all(row.get("since") is not None for row in own):
            since = {row["since"] for row in own}
            earlier = f"{unit} {min(since)}" if len(since) == 1 else f"the {unit} before"
            why = f": the weights are those of {earlier}"
        at = listed(steps).replace("step", unit)
        named.append(f"{run} {component.replace('_', ' ')} ({len(own)} at {at}{why})")
    return [f"zero matrices, which have no rank: {', '.join(named)}"] if named else []


def _run(row: Row) -> str:
    return str(row["run"])


def _limits(rows: Sequence[Row]) -> list[str]:
    """What the numbers cannot say."""
    noisy = [row for row in rows if _noise_matters(row)]
    by_component = _grouped(noisy, lambda r: (r["run"], r["component"]))
    return [
        f"{run}: PER of {len(own)} {component.replace('_', ' ')} "
        f"{'matrix' if len(own) == 1 else 'matrices'} may be rounding noise of "
        f"{mode(row['dtype'] for row in own)} storage: see per_resolved"
        for (run, component), own in by_component.items()
    ]


def _noise_matters(row: Row) -> bool:
    """Whether the rounding of its storage can be more than 1 % of the effective rank."""
    per, resolved = (math.nan if row[n] is None else row[n] for n in ("per", "per_resolved"))
    return row["noise_source"] == "storage" and bool(noise_matters(per, resolved))
