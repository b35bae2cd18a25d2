"""A run that is made to be spoiled: three honest steps, and what puts trouble into them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.conftest import Tensors

Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"
SHAPES = {Q: (4, 4), UP: (6, 4)}
CONFIG = {"model_type": "llama", "hidden_size": 4, "num_attention_heads": 2}
STEPS = (1, 2, 3)
OTHERS = (1, 3)  # than the one that most cases spoil
DEEP = "[" * 10**5  # JSON and TOML of this depth exhaust Python's stack
ANSI = "\x1b[2J\x1b]0;title\x07"
SURROGATE = '"\\ud800"'  # half a character: legal JSON, but no text that can be encoded
NO_FILE = "neither a file nor a link to one"
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Bad:
    """One case.

    Attributes
    ----------
    family
        What kind of trouble it is.
    make
        Changes the run at a path.
    exit_code
        That of ``analyze``.
    reason
        The reason of one of its skips; empty where nothing is skipped.
    what
        Words of the line that names it.
    steps
        The steps that are measured all the same.
    """

    name: str
    family: str
    make: Make
    exit_code: int
    reason: str
    what: str
    steps: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"


def fine(name: str, make: Make, what: str = "", *, steps: tuple[int, ...] = STEPS) -> Bad:
    """A case in which nothing is missing from the results."""
    return Bad(name, "", make, 0, "", what, steps)


def skipped(
    name: str,
    make: Make,
    what: str = "",
    *,
    reason: str = "unreadable",
    steps: tuple[int, ...] = OTHERS,
    exit_code: int = 3,
) -> Bad:
    """A case in which something is skipped, which is step 2 unless ``steps`` has it."""
    return Bad(name, "", make, exit_code, reason, what, steps)


def of(family: str, *cases: Bad) -> list[Bad]:
    """Cases of one family."""
    return [replace(one, family=family) for one in cases]


def honest(run: Path) -> Path:
    """Write a run of three steps in the layout of the Hugging Face Trainer."""
    for step in STEPS:
        write_step(run / f"checkpoint-{step}", step)
    return run


def write_step(folder: Path, step: int) -> None:
    """Write one checkpoint, whose matrices are known by its step."""
    folder.mkdir(parents=True)
    save_file(weights(step), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    state = {"global_step": step, "log_history": [{"step": step, "loss": 1 / step}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def weights(step: int) -> Tensors:
    """The matrices of a step."""
    rng = np.random.default_rng(step)
    return {f"{m}.weight": rng.normal(size=s).astype(np.float32) for m, s in SHAPES.items()}


def step_2(run: Path) -> Path:
    """The folder of the step that most cases spoil."""
    return run / "checkpoint-2"


def model(run: Path) -> Path:
    """The file of weights of that step."""
    return step_2(run) / "model.safetensors"


def replaced(run: Path, name: str, by: Make) -> None:
    """Put something else in place of a file of step 2."""
    path = step_2(run) / name
    path.unlink(missing_ok=True)
    by(path)


def holding(text: str | bytes) -> Make:
    """What writes a file with this content."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return lambda path: path.write_bytes(content)


def link_to(target: str | Path) -> Make:
    """What makes a link."""
    return lambda path: path.symlink_to(target)


def moved(run: Path, name: str) -> None:
    """Give the folder of step 2 another name."""
    step_2(run).rename(run / name)


FIFO = os.mkfifo
FOLDER = Path.mkdir
NOWHERE = link_to("nowhere")
DEVICE = link_to("/dev/zero")
