"""Tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from rankscope.checkpoints.run import listed

SHOWN = ("weight", "update", "merged_total")


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
    table = Table("role", "matrices", "shapes", "dtype", box=None, pad_edge=False)
    for line in run["matrices"]:
        table.add_row(line["role"], str(line["matrices"]), line["shapes"], line["dtype"])
    console.print(Padding(table, (0, 0, 1, 2)))


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    steps = tuple(step["step"] for step in run["steps"])
    sources = sorted({step["source"] for step in run["steps"]})
    facts = [
        ("layout", f"{run['layout']}, names {run['family']}, {run['layers']} layers"),
        ("steps", f"{len(steps)} checkpoints: {listed(steps)}; from {', '.join(sources)}"),
    ]
    if run["merges"]:
        facts.append(("merges", f"{len(run['merges'])} recorded"))
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
    facts += [("unknown", name) for name in run["unknown"][:10]]
    facts += [("skipped", f"{s['path']}: {s['tensor']}: {s['message']}") for s in run["skips"][:10]]
    return facts
