"""What the name of a file says: whether it may be, must be, or cannot be weights."""

from __future__ import annotations

import re
from pathlib import Path

# What trainers write beside weights. Shards and adapters are read with their folder; the rest is
# not a model.
NO_MODEL = re.compile(
    r"optim.*|scheduler.*|scaler.*|rng[_-]state.*|random_states.*|training_args\..*|train\.pt"
    r"|.*[_-]optim[_-]states\.pt|adapter_model\..*|(?:.*_)?gradients\..*|tokenizer\..*"
    r"|.*-\d{5}-of-\d{5}\..*",
    re.IGNORECASE,
)
NO_MODEL_FOLDERS = ("merges", "adapter")  # of a run, and of a checkpoint
OTHER_SUFFIXES = frozenset(
    (
        *(".py", ".sh", ".md", ".rst", ".txt", ".log", ".out", ".err", ".csv", ".tsv", ".parquet"),
        *(".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".html", ".lock"),
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".mp4", ".wav", ".ipynb", ".model"),
        *(".arrow", ".db", ".sqlite", ".so", ".pyc", ".tmp", ".js", ".css", ".tex", ".jinja"),
    )
)
# Names that only weights have. A .bin may be anything, so the rest of its name must say it.
WEIGHTS = re.compile(
    r".+\.(?:pt|pth|ckpt|safetensors|npz|pt\.tar|pth\.tar|ckpt\.tar|th|t7|pdparams)"
    r"|(?=.*(?:model|weight|checkpoint|ckpt|param|step|epoch|iter)).+\.bin",
    re.IGNORECASE,
)


def may_be_model(path: Path) -> bool:
    """Whether the name allows that the file holds a model; its content decides then."""
    return (
        path.suffix.lower() not in OTHER_SUFFIXES
        and path.parent.name not in NO_MODEL_FOLDERS
        and NO_MODEL.fullmatch(path.name) is None
    )


def is_called_weights(path: Path) -> bool:
    """Whether only weights have such a name."""
    return WEIGHTS.fullmatch(path.name) is not None


def stem_of(path: Path) -> str:
    """Name without its suffix; ``.pth.tar`` counts as one suffix."""
    return path.stem if path.suffix.lower() != ".tar" else Path(path.stem).stem
