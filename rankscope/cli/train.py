"""``rankscope train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.command import in_options
from rankscope.cli.exit_codes import NON_FINITE, NOT_WRITTEN, SIGNAL
from rankscope.cli.options import Threads, require_installed, set_threads

if TYPE_CHECKING:
    from rankscope.training.ending import TrainingOutcome


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A TOML file, such as configs/demo-relora.toml."),
    ],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting, such as schedule.steps=200; repeatable.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Training data: text, token ids, or a folder made by `rankscope data prepare`.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Start from the weights of this Hugging Face Llama model."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0, metavar="MINUTES", help="Save and stop after this many minutes."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML and stop.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print size, memory, schedule, disk and time, and stop."),
    ] = False,
    threads: Threads = None,
) -> None:
    """Train a small language model.

    Uses full-rank updates, ReLoRA, LoRA or phases of them. docs/training.md describes the settings.
    """
    from rankscope.training.config_file import load_config, to_toml

    # JSON strings are TOML strings: a path is never taken for a number or cut at a quote.
    paths = {"data.source": data, "init": init, "out": out}
    chosen = [f"{key}={json.dumps(path)}" for key, path in paths.items() if path is not None]
    settings = load_config(config, overrides=[*(override or []), *chosen])
    if print_config:
        typer.echo(to_toml(settings), nl=False)
        return
    require_installed("torch", "tokenizers", what="training", extra="train")
    set_threads(threads)
    if dry_run:
        from rankscope.dry_run.report import iter_dry_run

        for line in iter_dry_run(settings):
            typer.echo(in_options(line))
        return
    from rankscope.training.train import train as run_training

    outcome = run_training(settings, resume=resume, max_minutes=max_minutes)
    if outcome.message:
        typer.echo(in_options(outcome.message), err=True)
    raise typer.Exit(_exit_code(outcome))


def _exit_code(outcome: TrainingOutcome) -> int:
    if outcome.signal is not None:
        return SIGNAL + outcome.signal
    return {"unwritable": NOT_WRITTEN, "non-finite": NON_FINITE}.get(outcome.ending, 0)
