"""The answer in brief: how PER and condition numbers moved, and what stands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, mode

from rankscope.analysis.history import BETWEEN
from rankscope.analysis.moves import moves_in_words
from rankscope.analysis.summary_lines import (
    Line,
    by_noise,
    ends_of,
    grouped,
    lines_by_role,
    lines_overall,
    median_of,
)
from rankscope.checkpoints.run import listed
from rankscope.results.measure import Row
from rankscope.results.summary_tables import WINDOWS


@dataclass(frozen=True)
class Summary:
    """Lines by role and of all roles together, and findings in words, the most striking first."""

    lines: list[Line]
    overall: list[Line]
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
    broken = [
        f"{run}: the series breaks before {named.get(run, 'step')} {step}, and is summarised from "
        "there on"
        for run, step in starts.items()
    ]
    findings = [*broken, *moves_in_words(ranked, named), *_update_ranks(ranked)]
    findings += [*_repeated(rows, named), *_zeros(rows, named), *_limits(rows)]
    return Summary(lines_by_role(ranked), lines_overall(ranked), findings)


def _update_ranks(ranked: list[Row]) -> list[str]:
    """How much of their dimensions the updates of each run use at the end."""
    findings = []
    updates = [row for row in ranked if row["component"] == "update"]
    each = grouped(updates, lambda row: row["run"]).values()
    ended = [row for rows in each for row in ends_of(rows)[1]]
    for (run, window), last in grouped(ended, lambda r: (r["run"], r["window"] or "")).items():
        dimensions = median(min(row["rows"], row["cols"]) for row in last)
        per = fmean(row["per"] for row in last)
        findings.append(
            f"{run}: updates of the last interval{WINDOWS[window]} have PER {per:.3f} and "
            f"rank {median_of(last, 'numerical_rank') or 0:.0f} of {dimensions:.0f} (median)"
        )
    merged = [row for row in ranked if row["component"] == "merged_total"]
    for run, rows in grouped(merged, lambda row: row["run"]).items():
        _, last = ends_of(rows)
        count = len({row["step"] for row in rows})
        findings.append(
            f"{run}: after {count} merge{'s'[: count != 1]} their sum has rank "
            f"{median_of(last, 'numerical_rank') or 0:.0f} and effective rank "
            f"{fmean(row['effective_rank'] for row in last):.1f}"
        )
    return findings


def _repeated(rows: Sequence[Row], units: Mapping[str, str]) -> list[str]:
    """Where two checkpoints in a row hold the same weights, which makes every update zero."""
    updates = [row for row in rows if row["component"] == "update"]
    same = []
    for (run, since, step), own in grouped(updates, _interval).items():
        if all(row["status"] == "zero" for row in own):
            unit = units.get(run, "step")
            what = f"all {len(own)} measured matrices" if len(own) > 1 else "the measured matrix"
            same.append(
                f"{run}: {unit} {step} holds the same weights as {unit} {since} in {what}: that is "
                "why the updates between them are zero"
            )
    return same


def _interval(row: Row) -> tuple[str, int | None, int]:
    return row["run"], row["since"], row["step"]


def _zeros(rows: Sequence[Row], units: Mapping[str, str]) -> list[str]:
    """Which matrices are zero, and when, as far as that is not expected or said already."""
    updates = grouped((row for row in rows if row["component"] == "update"), _interval)
    repeated = {key for key, own in updates.items() if all(r["status"] == "zero" for r in own)}
    zero = [
        row
        for row in rows
        if row["status"] == "zero"
        and (row["component"] != "adapter" or row["step"] > 0)  # adapters start with B = 0
        and not (row["component"] in BETWEEN and _interval(row) in repeated)
    ]
    named = []
    for (run, component), own in grouped(zero, lambda r: (r["run"], r["component"])).items():
        steps = tuple(sorted({row["step"] for row in own}))
        at = listed(steps).replace("step", units.get(run, "step"))
        why = ": the weights did not change" if component in BETWEEN else ""
        named.append(f"{run} {component.replace('_', ' ')} ({len(own)} at {at}{why})")
    return [f"zero matrices, which have no rank: {', '.join(named)}"] if named else []


def _limits(rows: Sequence[Row]) -> list[str]:
    """What the numbers cannot say."""
    noisy, _ = by_noise([row for row in rows if row["noise_source"] == "storage"])
    by_component = grouped(noisy, lambda r: (r["run"], r["component"]))
    return [
        f"{run}: PER of {len(own)} {component.replace('_', ' ')} "
        f"{'matrix' if len(own) == 1 else 'matrices'} may be rounding noise of "
        f"{mode(row['dtype'] for row in own)} storage: see per_resolved"
        for (run, component), own in by_component.items()
    ]
