"""Tables on the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer

from rankscope.analysis.summary import WINDOWS
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import listed

SHOWN = ("weight", "update", "merged_total")
EVALUATED = {  # of what evaluations print, what it is called
    "loss": "nats/token",
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "mean_document_perplexity": "mean of documents",
    "macro_perplexity": "macro",
    "accuracy": "accuracy",
    "ties": "ties",
}
MOST = 10  # names in a list on the terminal


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary that ``analysis.json`` holds on stdout."""
    for component in SHOWN:
        found = [line for line in summary["lines"] if line["component"] == component]
        for window in dict.fromkeys(line.get("window", "") for line in found):
            lines = [line for line in found if line.get("window", "") == window]
            title = f"{component.replace('_', ' ')}{WINDOWS[window]}: first → last step"
            typer.echo(typer.style(title, bold=True))
            _print_columns(_summary_rows(component, lines), left=2)
    for finding in summary["findings"]:
        typer.echo(f"• {finding}")


def _summary_rows(component: str, lines: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Cells of a table, its heading first."""
    symbol = "κ" if component == "weight" else "κ_r"
    rows: list[tuple[str, ...]] = [("run", "role", "matrices", "PER", "rank", "of", symbol)]
    for line in sorted(lines, key=lambda line: str(line["run"])):
        conditions = zip(line["condition"], line["is_bound"], strict=True)
        rows.append(
            (
                line["run"],
                line["role"],
                str(line["matrices"]),
                " → ".join(f"{per:.3f}" for per in line["per"]),
                " → ".join(_number(rank, ".0f") for rank in line["rank"]),
                _number(line["max_rank"], ".0f"),
                " → ".join(
                    ("≥" if at_least else "") + _number(x, ".3g") for x, at_least in conditions
                ),
            )
        )
    return rows


def _print_columns(rows: list[tuple[str, ...]], *, left: int, indent: str = "") -> None:
    """Print cells below each other; the first ``left`` columns flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo(f"{indent}{'  '.join(cells)}".rstrip())


def print_evaluations(evaluations: list[dict[str, Any]]) -> None:
    """Print what ``evaluation.json`` says of some runs and tasks on stdout, a table a task."""
    for task in dict.fromkeys(one["task"] for one in evaluations):
        found = [one for one in evaluations if one["task"] == task]
        typer.echo(typer.style(f"{task}: first → last step, ± half of 95 %", bold=True))
        names = [name for name in EVALUATED if name in found[0]["last"]]
        unit = "pairs" if "accuracy" in names else "tokens"
        titles = (EVALUATED[name] for name in names)
        rows: list[tuple[str, ...]] = [("run", "steps", *titles, f"{unit}/s")]
        for one in sorted(found, key=lambda one: str(one["run"])):
            values = (_measured(one, name) for name in names)
            speed = _number(one[f"{unit}_per_second"], ",.0f")
            rows.append((one["run"], str(len(one["steps"])), *values, speed))
        _print_columns(rows, left=1)


def _measured(one: dict[str, Any], name: str) -> str:
    """First and last value of a measure, the last with its interval."""
    first, last = one["first"].get(name, {}), one["last"].get(name, {})
    form = ".0f" if name == "ties" else ".4g"
    values = [_number(at.get("value"), form) for at in (first, last)]
    if len(one["steps"]) == 1:
        values = values[1:]
    if last.get("ci_low") is None:
        return " → ".join(values)
    return f"{' → '.join(values)} ± {(last['ci_high'] - last['ci_low']) / 2:.2g}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if value >= 1e4 else f"{value:{form}}"


def print_description(run: dict[str, Any]) -> None:
    """Print what `rankscope.checkpoints.description.describe` found on stdout."""
    typer.echo(f"{typer.style(run['run'], bold=True)}  {run['path']}")
    for name, value in _facts(run):
        typer.echo(f"  {name:<10} {value}")
    columns = ("role", "layers", "matrices", "shapes", "dtype")
    rows = [columns, *(tuple(str(line[key]) for key in columns) for line in run["matrices"])]
    _print_columns(rows, left=len(columns), indent="  ")
    for name, value in _omissions(run):
        typer.echo(f"  {name:<10} {value}")
    typer.echo()


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    also = f" (also readable as {', '.join(run['also_readable_as'])})"
    facts = [
        ("layout", run["layout"] + (also if run["also_readable_as"] else "")),
        ("family", f"{run['family']}, {run['layers']} layers"),
        ("steps", _steps(run["steps"])),
    ]
    facts += [
        ("WARNING", f"steps {', '.join(map(str, same))} hold the same weights")
        for same in run["identical_steps"]
    ]
    if run["merges"]:
        facts.append(("merges", f"{len(run['merges'])} recorded"))
    if run["restarts"] is not None:
        facts.append(("restarts", f"{run['restarts']} before the last checkpoint"))
    if run["heads"]:
        heads = run["heads"]
        facts.append(
            ("heads", "{count} of size {size}, {kv_count} with keys and values".format(**heads))
        )
    if run["adapters"]:
        found = run["adapters"]
        ranks, scales = (", ".join(f"{x:g}" for x in found[key]) for key in ("ranks", "scales"))
        facts.append(("adapters", f"{found['count']}, rank {ranks}, scale {scales}"))
    if run["gradients"]:
        facts.append(("gradients", f"{run['gradients']} matrices"))
    return facts


def _steps(steps: list[dict[str, Any]]) -> str:
    """How many steps, which, and where their numbers came from."""
    numbers = tuple(step["step"] for step in steps)
    sources = Counter(step["step_source"] for step in steps)
    told = ", ".join(
        source if len(sources) == 1 else f"{source} ({count})" for source, count in sources.items()
    )
    return f"{len(numbers)} checkpoint{'s'[: len(numbers) != 1]}: {listed(numbers)}; from {told}"


def _omissions(run: dict[str, Any]) -> list[tuple[str, str]]:
    """What has no role, what is no matrix, and what an analysis would skip."""
    found = [("unknown", name) for name in run["unknown"][:MOST]]
    if len(run["unknown"]) > MOST:
        found.append(("", f"… and {len(run['unknown']) - MOST} more: see --json"))
    if run["left_out"]:
        found.append(("left out", f"{len(run['left_out'])} that are no linear map, such as norms"))
    found += [("skipped", str(Skip(**skip))) for skip in run["skips"][:MOST]]
    if len(run["skips"]) > MOST:
        found.append(("", f"… and {len(run['skips']) - MOST} more: see --json"))
    return found
