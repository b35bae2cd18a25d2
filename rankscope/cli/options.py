"""Options that several commands share, and the packages that some of them need."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rankscope.errors import RankscopeError

# Written out, so that help does not load what reads them; a test holds it against the layouts.
LAYOUT_NAMES = (
    "relora, pico, axolotl-relora, peft, deepspeed, litgpt, olmo_v1, huggingface, dcp, slices, "
    "nanogpt, nanochat, lightning, torch, safetensors, numpy"
)

LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout", help=f"Read as this layout, instead of recognising it: {LAYOUT_NAMES}."
    ),
]
FamilyName = Annotated[
    str | None,
    typer.Option("--family", help="Family of the models: its name, or a TOML file."),
]
BaseModel = Annotated[
    Path | None,
    typer.Option(
        "--base", help="Folder of the model that adapters were put on, where it is not found."
    ),
]
StepChoice = Annotated[
    str | None,
    typer.Option(
        "--steps",
        metavar="STEPS",
        help="Steps: 0,100,200 or FIRST:LAST:STRIDE; LAST is included, each may be left out.",
    ),
]
ResultsFolder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if anything was skipped.")]
TrustPickle = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Let pickles run the code of unknown classes."),
]


def require_installed(*modules: str, what: str, extra: str) -> None:
    """Raise `RankscopeError` that says what to install if a module is not there."""
    for module in modules:
        if find_spec(module) is None:
            raise RankscopeError(f'{what} needs {module}: pip install "rankscope[{extra}]"')
