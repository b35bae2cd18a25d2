"""Options that say how checkpoints are read; shared by the commands that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Written out, so that help does not load what reads them; a test holds it against the layouts.
LAYOUT_NAMES = (
    "relora, pico, axolotl-relora, peft, deepspeed, litgpt, olmo_v1, huggingface, dcp, slices, "
    "nanogpt, nanochat, lightning, torch, safetensors, numpy"
)

LayoutName = Annotated[
    str | None,
    typer.Option(
        "--format", help=f"Read as this layout, instead of recognising it: {LAYOUT_NAMES}."
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
TrustPickle = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Let pickles run the code of unknown classes."),
]
