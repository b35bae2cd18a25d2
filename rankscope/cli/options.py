"""Options that several commands share, and what they do before a command's own work."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from rankscope.analysis.engines import EngineName
from rankscope.errors import RankscopeError

# Written out so that --help need not load the layouts; a test compares them.
LAYOUT_NAMES = (
    "relora, pico, axolotl-relora, peft, deepspeed, litgpt, olmo_v1, huggingface, dcp, slices, "
    "nanogpt, nanochat, lightning, torch, safetensors, numpy"
)

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", readable=False, help="Runs, trees of runs, or checkpoints."),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help=f"Read the checkpoints as this layout instead of recognising it: {LAYOUT_NAMES}.",
    ),
]
FamilyName = Annotated[
    str | None,
    typer.Option(
        "--family",
        metavar="NAME|FILE",
        help="Read the models as this family instead of recognising it: a name from "
        "docs/checkpoints.md, or a TOML file that describes one.",
    ),
]
BaseModel = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="FOLDER",
        help="The model that the adapters were trained on, if it is not found automatically.",
    ),
]
StepChoice = Annotated[
    str | None,
    typer.Option(
        "--steps",
        metavar="STEPS",
        help="Steps to read: 0,100,200 or FIRST:LAST:STRIDE, which includes LAST; each part may be "
        "left out. By default all.",
    ),
]
ComponentChoice = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Components to measure, comma-separated (weight,update,adapter,...), or all. By "
        "default all but base, cumulative_update, ov_update, ov-published, qk and qk_update.",
    ),
]
RoleChoice = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Roles to measure, comma-separated (q,k,v,o,gate,up,down,...), or all. By default "
        "all but embed and unembed.",
    ),
]
LayerChoice = Annotated[
    str | None,
    typer.Option(
        metavar="LAYERS",
        help="Layers to measure: 0,3,6 or FIRST:LAST, which includes LAST. By default all.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Number of worker processes; by default one per processor."
    ),
]
EngineChoice = Annotated[
    EngineName,
    typer.Option(
        help="Where matrices are decomposed: in processes on this machine, on its GPU, or on a "
        "Dask cluster."
    ),
]
WindowChoice = Annotated[
    Literal["steps", "cycles"],
    typer.Option(
        help="What updates span: from each checkpoint to the next, or only whole cycles of "
        "ReLoRA, from one merge to the next."
    ),
]
ResultsFolder = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Folder for the results.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of the summary.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="End with exit code 4 instead of 3 if anything is skipped.")
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Let pickles run the code that their writer chose; for files that you trust.",
    ),
]

PrefixToken = Annotated[
    str,
    typer.Option(
        "--prefix",
        metavar="TOKEN",
        help="Token before every text: auto, bos, eos, none, or a token.",
    ),
]
TokenizerPath = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="PATH",
        help="A tokenizer.json, or a folder with a tokenizer; by default the model's.",
    ),
]
DeviceChoice = Annotated[Literal["cpu", "cuda"], typer.Option(help="Where models run.")]
PrecisionChoice = Annotated[
    Literal["float32", "bfloat16"], typer.Option(help="Precision of weights and products.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="CPU threads; by default torch decides.")
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let models run the code that comes with them; for models that you trust.",
    ),
]

PublishedCurves = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Draw over the published curves of Weiss et al. 2025, in grey, wherever these are for "
        "matrices of the same shape, the same task, or features of the same place (CKA of MLP "
        "outputs with the last step). The axis of steps is logarithmic if your steps end early.",
    ),
]


def require_installed(*modules: str, what: str, extra: str) -> None:
    """Raise `RankscopeError`, which says what to install, if a module is missing."""
    for module in modules:
        if find_spec(module) is None:
            raise RankscopeError(f'{what} needs {module}: pip install "rankscope[{extra}]"')


def set_threads(threads: int | None) -> None:
    """Have torch compute on this many processors; None leaves it to torch."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
