"""What kind of file a file is, by its content; and the words for kinds that are not read.

The name decides only what is worth a look, and what a file that holds no weights was meant to be.
Recognising reads at most `LOOK` bytes of a file, of a zip also its directory.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from rankscope.checkpoints.files.damage import LOOK, damage
from rankscope.checkpoints.files.safetensors_file import MAX_HEADER
from rankscope.checkpoints.files.telling_names import are_of_model
from rankscope.checkpoints.files.zip_file import FilePart, zip_entries
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError, printable

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
# Files with these ends are never weights, and not opened.
OTHERS = frozenset(
    (
        *(".py", ".sh", ".md", ".rst", ".txt", ".log", ".out", ".err", ".csv", ".tsv", ".parquet"),
        *(".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".html", ".lock"),
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".mp4", ".wav", ".ipynb", ".model"),
        *(".arrow", ".db", ".sqlite", ".so", ".pyc", ".tmp", ".js", ".css", ".tex", ".jinja"),
    )
)
# What only weights are called; a .bin may be anything, and says so by the rest of its name.
WEIGHTS = re.compile(
    r".+\.(?:pt|pth|ckpt|safetensors|npz|pt\.tar|pth\.tar|ckpt\.tar|th|t7|pdparams)"
    r"|(?=.*(?:model|weight|checkpoint|ckpt|param|step|epoch|iter)).+\.bin",
    re.IGNORECASE,
)
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
READ = "convert it to safetensors"
WORDS: dict[Kind, str] = {
    "gguf": f"is a GGUF file, which is not read: {READ} (its weights are often quantised)",
    "ggml": f"is a GGML file, which is not read: {READ}",
    "onnx": "is an ONNX model, which is not read: give the weights that it was exported from",
    "tflite": "is a TensorFlow Lite model, which is not read: give the weights it was made from",
    "hdf5": f"is an HDF5 file, which is not read: {READ}",
    "keras": f"is a Keras archive, which is not read: {READ}",
    "msgpack": f"is a msgpack file of Flax, which is not read: {READ}",
    "nemo": "is a .nemo archive, which is not read: unpack it with tar, and give what is in it",
    "tar": "is a tar archive, which is not read: unpack it",
    "tensorflow": f"is a checkpoint of TensorFlow, which is not read: {READ}",
    "gzip": "is compressed with gzip, and not read: unpack it",
    "pickle": "is a plain pickle, which is not read: save its tensors with torch.save",
}


def kind_of(path: Path) -> Kind:
    """What a file is by its content; by its name only where that says nothing.

    ``none`` is what cannot be weights, by its suffix or because it is not a file that can be
    opened; ``unknown`` what has no mark of any kind; ``cut-short`` what begins as a kind whose end
    is missing.
    """
    if path.suffix.lower() in OTHERS:
        return "none"
    try:
        with open_regular(path) as (file, size):
            part = FilePart(file, 0, size)
            return _kind(path, part, part.bytes_at(0, LOOK))
    except (RankscopeError, OSError):
        return "none"


def is_safetensors(path: Path) -> bool:
    """Whether a file is to be read as safetensors: by its content, else by its name."""
    kind = kind_of(path)
    return kind == "safetensors" or (kind not in TORCH and path.suffix.lower() == ".safetensors")


def is_called_weights(path: Path) -> bool:
    """Whether a name is one that is given to weights alone."""
    return WEIGHTS.fullmatch(path.name) is not None


def refusal(path: Path) -> str:
    """What is to be said of a file that looks like a checkpoint and is not read as one.

    By its name or by its content: of a kind that is not read; without weights in it, such as the
    state of an optimizer, a log or data. Empty for a file that is read, and for one that no one
    would take for weights.
    """
    kind = kind_of(path)
    if kind == "npz":
        return _lack_in_archive(path)
    if kind in TORCH:
        return _lack_in_object(path, kind)
    if kind in ("pickle", "tar", "gzip") and path.suffix.lower() not in PICKLES:
        return WORDS.get(kind, "") if is_called_weights(path) else ""
    return WORDS.get(kind, "")


def _lack_in_archive(path: Path) -> str:
    from rankscope.checkpoints.files.numpy_file import open_arrays

    try:
        arrays, skips = open_arrays(path)
    except RankscopeError as error:
        return error.message
    names = [*arrays, *(skip.tensor for skip in skips)]
    if are_of_model(names, path.stem):
        return ""
    shown = printable(", ".join(names), limit=80)
    return f"has arrays without the names of parameters ({shown}): taken for a log or for data"


def _lack_in_object(path: Path, kind: Kind) -> str:
    # Here, since most folders have no such file, and the modules need this one.
    from rankscope.checkpoints.files.agent_zip import open_agent
    from rankscope.checkpoints.files.saved_tables import lack_of_weights
    from rankscope.checkpoints.files.torch_file import open_saved

    try:
        return lack_of_weights((open_agent if kind == "agent" else open_saved)(path))
    except RankscopeError as error:
        return error.message


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
    """Whether a file begins with the length of a JSON table; it may be longer than the file."""
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
