"""Tables on the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import listed

SHOWN = ("weight", "update", "merged_total")
MOST = 10  # names in a list on the terminal


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary that ``analysis.json`` holds on stdout."""
    console = Console(highlight=False)
    for component in SHOWN:
        lines = [line for line in summary["lines"] if line["component"] == component]
        if lines:
            console.print(_table(component, lines))
    for finding in summary["findings"]:
        console.print(f"• {finding}", markup=False)


def _table(component: str, lines: list[dict[str, Any]]) -> Table:
    table = Table(
        "run",
        "role",
        title=f"{component.replace('_', ' ')}: first → last step",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for heading in ("matrices", "PER", "rank", "of", "κ" if component == "weight" else "κ_r"):
        table.add_column(heading, justify="right")
    for line in sorted(lines, key=lambda line: str(line["run"])):
        conditions = zip(line["condition"], line["is_bound"], strict=True)
        table.add_row(
            escape(line["run"]),
            line["role"],
            str(line["matrices"]),
            " → ".join(f"{per:.3f}" for per in line["per"]),
            " → ".join(_number(rank, ".0f") for rank in line["rank"]),
            _number(line["max_rank"], ".0f"),
            " → ".join(("≥" if is_bound else "") + _number(x, ".3g") for x, is_bound in conditions),
        )
    return table


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if value >= 1e4 else f"{value:{form}}"


def print_description(run: dict[str, Any]) -> None:
    """Print what `rankscope.checkpoints.description.describe` found on stdout."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(run['run'])}[/bold]  {escape(run['path'])}")
    for name, value in _facts(run):
        console.print(f"  {name:<10} {escape(value)}")
    table = Table("role", "layers", "matrices", "shapes", "dtype", box=None, pad_edge=False)
    for line in run["matrices"]:
        table.add_row(
            *(str(line[key]) for key in ("role", "layers", "matrices", "shapes", "dtype"))
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    for name, value in _omissions(run):
        console.print(f"  {name:<10} {escape(value)}")
    console.print()


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
