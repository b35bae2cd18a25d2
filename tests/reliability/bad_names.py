"""Trouble with the names of tensors, runs and files."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

from tests.conftest import Tensors
from tests.reliability.spoiled_run import (
    ANSI,
    STEPS,
    Q,
    fine,
    of,
    skipped,
    weights,
)


def raw_tensors(path: Path, tensors: Tensors, names: dict[str, str]) -> None:
    """Write safetensors with names as JSON spells them, which no library would write."""
    header, data, start = [], b"", 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        entry = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
        header.append(f"{names.get(name, json.dumps(name))}:{json.dumps(entry)}")
        data, start = data + tensor.tobytes(), end
    text = ("{" + ",".join(header) + "}").encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def named(run: Path, name: str, *, steps: tuple[int, ...] = STEPS) -> None:
    """Call the query matrix by a name, given as JSON text."""
    for step in steps:
        path = run / f"checkpoint-{step}" / "model.safetensors"
        raw_tensors(path, weights(step), {f"{Q}.weight": name})


NAMES = of(
    "names of tensors",
    *(
        fine(name, partial(named, name=text))
        for name, text in {
            "with a carriage return": '"a\\rb.weight"',
            "with a line end": '"a\\nb.weight"',
            "with NUL": '"a\\u0000b.weight"',
            "with terminal codes": json.dumps(f"a{ANSI}b.weight"),
            "with a mark for right to left": '"a\\u202eb.weight"',
            "with a formula": '"=HYPERLINK(\\"x\\").weight"',
            "with quotes and commas": '"a\\",\\"b.weight"',
            "with mathematics": '"a_$\\\\frac{x$.weight"',
            "with a tag": '"<script>alert(1)</script>.weight"',
            "that leads above": '"../../etc/passwd"',
            "of 10^5 characters": json.dumps("a" * 10**5),
            "that is empty": '""',
        }.items()
    ),
    *(
        fine(name, partial(named, name=json.dumps(text)))
        for name, text in {
            "a layer of 21 digits": f"model.layers.{'9' * 21}.self_attn.q_proj.weight",
            "a layer of 5000 digits": f"model.layers.{'9' * 5000}.self_attn.q_proj.weight",
            "an expert of 21 digits": f"model.layers.0.mlp.experts.{'9' * 21}.up_proj.weight",
            "an expert of 5000 digits": f"model.layers.0.mlp.experts.{'9' * 5000}.up_proj.weight",
        }.items()
    ),
    *(
        skipped(
            f"with {name}", partial(named, name=text, steps=(2,)), "damaged", reason="header-utf8"
        )
        for name, text in {
            "half a character": '"a\\ud800b.weight"',
            "a byte in disguise": '"a\\udcffb.weight"',
        }.items()
    ),
)


def renamed(run: Path, name: bytes, *, path: str = "") -> None:
    """Give the run, or something in it, a name in bytes."""
    old = run / path
    old.rename(old.parent / os.fsdecode(name))


RUN_NAMES = of(
    "names of runs",
    *(
        fine(name, partial(renamed, name=to))
        for name, to in {
            "not UTF-8": b"run-\xff",
            "terminal codes": ANSI.encode(),
            "a line end": b"run\nsecond",
            "a carriage return": b"run\rsecond",
            "right to left": "run\u202etxt".encode(),
            "a formula": b"=1+1",
            "mathematics": b"run_$\\frac{x$",
            "a tag": b"<b>run",
            "255 bytes": b"r" * 255,
        }.items()
    ),
    fine(
        "a step that is not UTF-8",
        partial(renamed, name=b"checkpoint-2-\xff", path="checkpoint-2"),
    ),
    fine(
        "a file that is not UTF-8",
        lambda r: (r / os.fsdecode(b"\xff.pt")).write_bytes(b"\x80\x02."),
    ),
)
