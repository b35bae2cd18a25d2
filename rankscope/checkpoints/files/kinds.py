"""The kind of a file, by its content, and what to say of kinds that are not read.

Recognising a file reads its first `LOOK` bytes, and of a zip its directory. Where the content shows
nothing, the name says what a damaged file was meant to be.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from rankscope.checkpoints.files.file_names import OTHER_SUFFIXES
from rankscope.checkpoints.files.zip_file import FilePart, zip_entries
from rankscope.checkpoints.limits import MAX_HEADER
from rankscope.checkpoints.tensors import AGAIN, open_regular
from rankscope.errors import RankscopeError

LOOK = 512  # bytes from the start of a file

Kind = Literal[
    "safetensors",
    "torch",
    "torch-before-1.6",
    "torchscript",
    "npz",
    "npy",
    "agent",
    "gguf",
    "onnx",
    "hdf5",
    "keras",
    "msgpack",
    "nemo",
    "tar",
    "tensorflow",
    "tflite",
    "ggml",
    "pickle",
    "zip",
    "gzip",
    "lfs-pointer",
    "web-page",
    "empty",
    "cut-short",
    "unknown",
    "none",
]
Damage = Literal["empty", "lfs-pointer", "web-page"]
TORCH: tuple[Kind, ...] = ("torch", "torch-before-1.6", "torchscript", "agent")
DAMAGED: tuple[Kind, ...] = ("lfs-pointer", "web-page", "empty", "cut-short", "unknown")

ZIP, NPY = b"PK\3\4", b"\x93NUMPY"
TORCH_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # of torch before 1.6
MAGIC: dict[bytes, Kind] = {
    b"GGUF": "gguf",
    b"lmgg": "ggml",
    b"tjgg": "ggml",
    b"fmgg": "ggml",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    NPY: "npy",
    b"\x1f\x8b": "gzip",
}
POINTER = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
TENSORFLOW = re.compile(r".*\.ckpt(?:-\d+)?\.(?:index|meta|data-\d+-of-\d+)|.+\.pb", re.IGNORECASE)
BY_NAME: dict[str, Kind] = {
    ".gguf": "gguf",
    ".onnx": "onnx",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".keras": "keras",
    ".msgpack": "msgpack",
    ".nemo": "nemo",
    ".tflite": "tflite",
    ".ggml": "ggml",
}
PROTOCOLS = tuple(bytes([number]) for number in range(2, 6))
PICKLES = (".pkl", ".pickle", ".joblib")
CONVERT = "convert it to safetensors"
REFUSALS: dict[Kind, str] = {
    "gguf": f"is a GGUF file, which is not read: {CONVERT} (its weights are often quantised)",
    "ggml": f"is a GGML file, which is not read: {CONVERT}",
    "onnx": "is an ONNX model, which is not read: give the weights that it was exported from",
    "tflite": "is a TensorFlow Lite model, which is not read: give the weights it was made from",
    "hdf5": f"is an HDF5 file, which is not read: {CONVERT}",
    "keras": f"is a Keras archive, which is not read: {CONVERT}",
    "msgpack": f"is a msgpack file of Flax, which is not read: {CONVERT}",
    "nemo": "is a .nemo archive, which is not read: unpack it with tar and give what is in it",
    "tar": "is a tar archive, which is not read: unpack it",
    "tensorflow": f"is a TensorFlow checkpoint, which is not read: {CONVERT}",
    "gzip": "is compressed with gzip, which is not read: unpack it",
    "pickle": "is a plain pickle, which is not read: save its tensors with torch.save",
}
DAMAGE_MESSAGES: dict[Damage, str] = {
    "empty": "is empty, not a {kind} file",
    "lfs-pointer": "is a git-lfs pointer, not the weights: run `git lfs pull`",
    "web-page": "is a web page, not a {kind} file: download it again",
}


def kind_of(path: Path) -> Kind:
    """The kind of a file by its content; by its name only where the content shows nothing.

    ``none`` cannot be weights, by its suffix or because it cannot be opened as a file. ``unknown``
    has no mark of any kind. ``cut-short`` begins as a kind whose end is missing.
    """
    if path.suffix.lower() in OTHER_SUFFIXES:
        return "none"
    try:
        with open_regular(path) as (file, size):
            part = FilePart(file, 0, size)
            return _kind(path, part, part.bytes_at(0, LOOK))
    except (RankscopeError, OSError):
        return "none"


def is_safetensors(path: Path) -> bool:
    """Whether to read a file as safetensors: by its content, else by its name."""
    kind = kind_of(path)
    return kind == "safetensors" or (kind not in TORCH and path.suffix.lower() == ".safetensors")


def damage(start: bytes, size: int) -> Damage | None:
    """What is there in place of weights, by its first bytes; None for anything else.

    Each is also the reason of a skip, so that a step with such a file keeps its place in a series.
    """
    if size == 0:
        return "empty"
    if start.startswith(POINTER):
        return "lfs-pointer"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        return "web-page"
    return None


def not_weights(start: bytes, size: int, path: str | Path, *, kind: str) -> RankscopeError:
    """The error for a file that is not of the kind that it was opened as.

    Parameters
    ----------
    start
        Its first bytes.
    size
        The number of all its bytes.
    kind
        What it was opened as: torch, safetensors.
    """
    reason = damage(start, size)
    if reason:
        return RankscopeError(DAMAGE_MESSAGES[reason].format(kind=kind), path=path, reason=reason)
    message = f"is cut short or not a {kind} file ({size} bytes): {AGAIN}"
    return RankscopeError(message, path=path, reason="cut-short")


def _kind(path: Path, part: FilePart, start: bytes) -> Kind:
    damaged = damage(start, part.size)
    if damaged is not None:
        return damaged
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return kind
    if start.startswith(ZIP):
        return _kind_of_zip(path, part)
    if start.startswith(b"\x80") and TORCH_MAGIC in start[:32]:
        return "torch-before-1.6"
    if _is_safetensors(start, part.size):
        is_whole = int.from_bytes(start[:8], "little") <= part.size - 8
        return "safetensors" if is_whole else "cut-short"
    if start[257:262] == b"ustar":
        return "nemo" if path.suffix.lower() == ".nemo" else "tar"
    if start[4:8] == b"TFL3":
        return "tflite"
    if start[:1] == b"\x08" and (b"pytorch" in start or b"onnx" in start):
        return "onnx"
    if start[:1] == b"\x80" and start[1:2] in PROTOCOLS:
        return "pickle" if part.bytes_at(part.size - 1, 1) == b"." else "cut-short"
    return _by_name(path)


def _by_name(path: Path) -> Kind:
    if TENSORFLOW.fullmatch(path.name):
        return "tensorflow"
    named = BY_NAME.get(path.suffix.lower())
    if named is not None:
        return named
    return "pickle" if path.suffix.lower() in PICKLES else "unknown"


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON table, which may exceed the file."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 2 <= length <= MAX_HEADER and size > 8


def _kind_of_zip(path: Path, part: FilePart) -> Kind:
    try:
        names = list(zip_entries(part, path))
    except RankscopeError:
        return "cut-short"
    below = {name.partition("/")[2] for name in names}
    if "data.pkl" in below:
        return "torchscript" if "constants.pkl" in below else "torch"
    if "policy.pth" in names:
        return "agent"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith(".weights.h5") for name in names):
        return "keras"
    return "nemo" if path.suffix.lower() == ".nemo" else "zip"
