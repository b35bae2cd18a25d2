"""``rankscope diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.exit_codes import FOUND_ERROR
from rankscope.cli.options import AsJson, BaseModel, FamilyName, LayoutName, Runs, TrustPickle

if TYPE_CHECKING:
    from rankscope.diagnostics.diagnose import Diagnosis
    from rankscope.diagnostics.finding import Finding

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def diagnose(
    runs: Runs,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="RESULTS",
            help="The folder that analyze wrote for these runs, for findings that need spectra.",
        ),
    ] = None,
    layout: LayoutName = None,
    family: FamilyName = None,
    trust_pickle: TrustPickle = False,
    base: BaseModel = None,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with a training or its checkpoints.

    Prints findings, worst first, each with the evidence, what it means and what to do. Reads
    headers, logs and samples of the tensors; nothing is decomposed. The exit code is 1 if there is
    an error among the findings. docs/diagnose.md lists all kinds.
    """
    import json

    from rankscope.checkpoints.discovery import survey
    from rankscope.diagnostics.diagnose import diagnosed

    met = survey(runs, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    found = diagnosed(met, results)
    if as_json:
        typer.echo(json.dumps(found.as_document(), indent=2))
    else:
        _print(found)
    if found.worst == "error":
        raise typer.Exit(FOUND_ERROR)


def _print(found: Diagnosis) -> None:
    for finding in found:
        _print_finding(finding)
    counts = {severity: sum(one.severity == severity for one in found) for severity in COLOURS}
    words = ", ".join(
        f"{count} {severity}{'s'[: count != 1]}" for severity, count in counts.items() if count
    )
    of = f"{len(found.runs)} run{'s'[: len(found.runs) != 1]}"
    typer.echo(f"{words} in {of}" if words else f"nothing found in {of}")
    _print_unchecked(found)


def _print_finding(finding: Finding) -> None:
    """Where and what in one line, then what it means, and what to do."""
    from rankscope.cli.command import in_options
    from rankscope.errors import plain

    severity = typer.style(finding.severity, fg=COLOURS[finding.severity], bold=True)
    typer.echo(f"{severity}  {typer.style(finding.code, bold=True)}  {plain(finding.where)}")
    typer.echo(_wrapped(f"{plain(finding.evidence)}. {finding.meaning}"))
    typer.echo(_wrapped(f"→ {in_options(finding.remedy)}"))
    typer.echo()


def _wrapped(text: str) -> str:
    import shutil
    import textwrap

    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")


def _print_unchecked(found: Diagnosis) -> None:
    """What could not be looked for, one line per reason."""
    from rankscope.cli.command import in_options
    from rankscope.errors import plain

    for reason, codes in found.unchecked_by_reason().items():
        typer.echo(f"not checked: {', '.join(codes)}: {in_options(plain(reason))}", err=True)
