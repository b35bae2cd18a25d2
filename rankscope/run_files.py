"""The files of a run that the trainer and `rankscope.relora` write: names, formats and bytes.

A run is a folder with ``checkpoints/step-<step>`` and ``merges/step-<step>.safetensors``; both
folders hold a manifest of their kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rankscope.durable import write_listed_file

CHECKPOINT_FORMAT, MERGES_FORMAT = "rankscope-checkpoint-1", "rankscope-merges-1"
RELORA_FORMAT = "rankscope-relora-checkpoint-1"  # of any model, not the trainer's own
STEP_NAME = re.compile(r"step-(\d{8,})")
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def step_name(step: int) -> str:
    """Name of a step's folder or file; names sort as steps do."""
    return f"step-{step:08d}"


def write_merge(
    run: Path, factors: Mapping[str, tuple[Tensor, Tensor, float]], *, step: int, restarts: int
) -> None:
    """Write ``merges/step-<step>.safetensors``, every adapter just before it is merged.

    ``merges/MANIFEST.json`` lists the digests of all merges.

    Parameters
    ----------
    run
        The run's folder.
    factors
        ``lora_A`` (r, in), ``lora_B`` (out, r) and the factor of their product in what the merge
        adds, by module.
    step
        Optimizer steps completed.
    restarts
        Number of merges so far, with this one.
    """
    tensors: dict[str, Tensor] = {}
    for name, (a, b, scale) in factors.items():
        tensors[f"{name}.lora_A"] = a
        tensors[f"{name}.lora_B"] = b
        tensors[f"{name}.scale"] = torch.tensor([scale], dtype=torch.float64)
    content = tensor_bytes(tensors, step=str(step), restart=str(restarts))
    path = run / "merges" / f"{step_name(step)}.safetensors"
    write_listed_file(path, content, kind=MERGES_FORMAT)


def peft_tensors(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """``lora_A`` and ``lora_B`` of each module under the names that PEFT gives them in files."""
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    return tensors


def json_bytes(value: Mapping[str, object]) -> bytes:
    """A table as the content of a JSON file."""
    return (json.dumps(value, indent=2) + "\n").encode()


def tensor_bytes(tensors: Mapping[str, Tensor], **metadata: str) -> bytes:
    """Return the content of a safetensors file: equal tensors give equal bytes.

    The library's own writer orders the metadata of a file differently from one call to the next, so
    its files differ in their digests even if their tensors are equal.

    Parameters
    ----------
    tensors
        On any device.
    metadata
        What the header says besides ``format: pt``.

    References
    ----------
    The format's description, https://github.com/huggingface/safetensors#format: the length of the
    header in eight bytes, the header as JSON padded with spaces, then the tensors without gaps.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Wider types first: then every tensor begins at a multiple of its item size.
    names = sorted(held, key=lambda name: (-held[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name in names:
        start, end = end, end + held[name].nbytes
        header[name] = {
            "dtype": _DTYPES[held[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = (held[name].reshape(-1).view(torch.uint8).numpy().data for name in names)
    return b"".join([len(text).to_bytes(8, "little"), text, *content])
