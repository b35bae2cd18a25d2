"""What a bad file is, the small ones that all others are made of, and the honest run around it.

The bad file lies at step 2 of a run whose steps 1 and 3 are honest. Every place where rankscope
reads a file of tensors has its own kind of run. `bad_files` has the table of all of them.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Family = int | str
Make = bytes | Callable[[], bytes]
Place = Literal["weights", "torch", "file", "numpy", "adapter", "merge"]
Cost = Literal["step", "tensor", "nothing"]

STEPS, BAD_STEP = (1, 2, 3), 2
MODULE = "model.layers.0.self_attn"
Q, K = f"{MODULE}.q_proj.weight", f"{MODULE}.k_proj.weight"
SHAPE, RANK, SCALE = (6, 4), 2, 0.5
F32 = 4  # bytes


@dataclass(frozen=True)
class Bad:
    """One bad file, and what has to become of it.

    Attributes
    ----------
    name
        Unique in its table.
    family
        Number of the fault in the survey that the table follows.
    make
        Makes the bytes of the file.
    exit_code
        Of ``rankscope analyze`` on a run with this file at step 2.
    reason
        Code of the one line that is printed; empty if there is none.
    what
        A phrase in that line.
    tensor
        The name of the tensor that the line gives; empty for the file as a whole.
    place
        Which file of step 2 it is.
    cost
        What is lost: all of step 2, the tensor that is named, or nothing.
    truth
        Matrices of step 2 that must be measured, by name, in float64. By default what `honest`
        gives, less what is lost.
    hole
        Bytes of zeros after what ``make`` gives, which take no place on the disk.
    step
        The tensors of honest steps.
    headers
        Whether headers show it, so that ``inspect`` says the same as ``analyze``.
    lines
        Number of lines about what is lost, of which one is described here.
    notes
        Number of remarks beside them.
    breaks
        Whether no update can be measured at the last step.
    """

    name: str
    family: Family
    make: Callable[[], bytes]
    exit_code: int
    reason: str
    what: str
    tensor: str = ""
    place: Place = "weights"
    cost: Cost = "step"
    truth: Mapping[str, Array] | None = field(default=None, repr=False, compare=False)
    hole: int = 0
    step: Callable[[int], dict[str, Array]] | None = None
    headers: bool = True
    lines: int = 1
    notes: int = 0
    breaks: bool = False


def whole(name: str, family: Family, make: Make, reason: str, what: str, **more: Any) -> Bad:
    """A file that costs its step."""
    content = (lambda: make) if isinstance(make, bytes) else make
    return Bad(name, family, content, 3, reason, what, **more)


def lost(name: str, family: Family, make: Make, reason: str, what: str, **more: Any) -> Bad:
    """A file that costs one tensor, which is that of the keys."""
    more = {"tensor": K, "cost": "tensor"} | more
    return whole(name, family, make, reason, what, **more)


def fine(
    name: str, family: Family, make: Make, truth: Mapping[str, Array] | None = None, **more: Any
) -> Bad:
    """A file that only looks bad."""
    content = (lambda: make) if isinstance(make, bytes) else make
    return Bad(name, family, content, 0, "", "", cost="nothing", truth=truth, **more)


def st(header: bytes, data: bytes = b"", n: int | None = None) -> bytes:
    """A safetensors file of any header, data and length of the header."""
    return struct.pack("<Q", len(header) if n is None else n) + header + data


def table(entries: Mapping[str, Any], data: bytes = b"") -> bytes:
    """A safetensors file whose header is this table."""
    return st(json.dumps(entries).encode(), data)


def entry(shape: Any, start: Any, stop: Any, dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    """What a safetensors header says of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}


def tensors(arrays: Mapping[str, Array], **metadata: str) -> bytes:
    """A safetensors file of float32, float64 and other plain arrays, in the order given."""
    codes = {"f4": "F32", "f8": "F64", "f2": "F16", "i1": "I8", "u1": "U8", "b1": "BOOL"}
    codes |= {"i4": "I32", "i8": "I64", "c8": "C64"}
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        code = codes[array.dtype.str[1:]]
        entries[name] = entry(list(array.shape), len(data), len(data) + len(raw), code)
        data += raw
    return table(entries, data)


def pt(saved: Any, *, is_zip: bool = True) -> bytes:
    """What ``torch.save`` writes."""
    import torch

    buffer = io.BytesIO()
    torch.save(saved, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def zipped(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    """The entries of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def flipped(content: bytes, inside: bytes) -> bytes:
    """The same with one bit flipped in this part."""
    place = content.index(inside) + 5
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


def npz(arrays: Mapping[str, Array], *, is_compressed: bool = False) -> bytes:
    """What numpy writes for these arrays."""
    buffer = io.BytesIO()
    (np.savez_compressed if is_compressed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def matrix(step: int, number: int = 0, shape: tuple[int, ...] = SHAPE) -> Array:
    """Random float32 numbers, the same ones each time."""
    return np.random.default_rng([step, number]).normal(size=shape).astype(np.float32)


def honest(step: int = 2) -> dict[str, Array]:
    """The weights of a step: one matrix of queries, one of keys."""
    return {Q: matrix(step, 0), K: matrix(step, 1)}


def factors(step: int = 2) -> dict[str, tuple[Array, Array]]:
    """Adapters of both modules: B and A."""
    return {
        name.removesuffix(".weight"): (
            matrix(step, number, (SHAPE[0], RANK)),
            matrix(step, number + 1, (RANK, SHAPE[1])),
        )
        for number, name in ((2, Q), (4, K))
    }


def adapter_arrays(step: int = 2) -> dict[str, Array]:
    """Factors under the names that PEFT gives them."""
    arrays = {}
    for module, (left, right) in factors(step).items():
        arrays[f"base_model.model.{module}.lora_A.weight"] = right
        arrays[f"base_model.model.{module}.lora_B.weight"] = left
    return arrays


def merge_arrays(step: int = 2) -> dict[str, Array]:
    """Factors under the names that the trainer gives them when it merges."""
    arrays = {}
    for module, (left, right) in factors(step).items():
        arrays |= {f"{module}.lora_A": right, f"{module}.lora_B": left}
        arrays[f"{module}.scale"] = np.array([SCALE])
    return arrays


def delta(step: int, name: str) -> Array:
    """What an adapter or a merge adds to a weight, multiplied out."""
    left, right = factors(step)[name.removesuffix(".weight")]
    return SCALE * left.astype(np.float64) @ right.astype(np.float64)


def write_run(run: Path, bad: Bad) -> Path:
    """Write the run with the bad file at step 2; returns the path of that file."""
    for step in STEPS:
        path = write_step(run, bad, step)
        if step == BAD_STEP:
            found = path
    found.write_bytes(bad.make())
    if bad.hole:
        with found.open("r+b") as file:
            file.truncate(found.stat().st_size + bad.hole)
    return found


def write_step(run: Path, bad: Bad, step: int) -> Path:
    """Write one honest step; returns the path of the file that would be bad."""
    place, weights = bad.place, (bad.step or honest)(step)
    if place in ("file", "numpy"):
        run.mkdir(exist_ok=True)
        path = run / f"step_{step}.{'safetensors' if place == 'file' else 'npz'}"
        path.write_bytes(tensors(weights) if place == "file" else npz(weights))
        return path
    folder = run / f"checkpoint-{step}"
    if place == "merge":
        folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    if place == "adapter":
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": SCALE * RANK}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        path = folder / "adapter_model.safetensors"
        path.write_bytes(tensors(adapter_arrays(step)))
        return path
    (folder / "config.json").write_text('{"model_type": "llama"}')
    if place == "torch" and step == BAD_STEP:
        return folder / "pytorch_model.bin"
    path = folder / "model.safetensors"
    path.write_bytes(tensors(weights))
    if place == "merge":
        path = run / "merges" / f"step-{step:08d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tensors(merge_arrays(step)))
    return path
