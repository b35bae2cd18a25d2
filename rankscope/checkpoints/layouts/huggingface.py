"""Hugging Face folders: weights, whole or in shards, with their ``config.json``.

Covers ``save_pretrained`` (safetensors, and the older ``.bin``), its variants such as
``model.fp16.safetensors``, the Trainer's ``checkpoint-N``, and this package's trainer, which puts
an ``adapter`` folder and ``gradients.safetensors`` beside the weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from rankscope.checkpoints.adapters.joining import on_base
from rankscope.checkpoints.adapters.parted import NONE
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.adapters.peft_files import read_adapter
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.weights_file import open_weights_file
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError

# By preference. A variant has no hyphen, which tells it from a shard: `model-00001-of-00002`.
INDICES = (
    re.compile(r"model\.safetensors\.index(?P<variant>\.\w+)?\.json"),
    re.compile(r"pytorch_model\.bin\.index(?P<variant>\.\w+)?\.json"),
)
WHOLE = (
    re.compile(r"model(?P<variant>\.\w+)?\.safetensors"),
    re.compile(r"pytorch_model(?P<variant>\.\w+)?\.bin"),
)


def recognises(folder: Path) -> bool:
    """Whether the folder holds the weights of a model."""
    return bool(_candidates(folder))


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged or a shard is missing.
    """
    adapter = NONE
    if (folder / "adapter" / CONFIG).is_file():
        adapter = read_adapter(folder / "adapter", options)
    joined = on_base(adapter, open_weights(folder, options))
    gradients = folder / "gradients.safetensors"
    return contents_of(
        "huggingface",
        joined.tensors,
        read_json(folder / "config.json"),
        options,
        adapters=joined.adapters,
        gradients=open_tensors(gradients) if gradients.is_file() else None,
        skips=joined.skips,
        notes=joined.notes,
        aside=joined.aside,
    )


def open_weights(folder: Path, options: Options = DEFAULT) -> dict[str, StoredTensor]:
    """Tensors of the model by name, of the first that is whole of the files that may hold them.

    Safetensors come before ``.bin``, weights without a variant before a variant, and an index of
    shards before a single file, which may be older.

    Raises
    ------
    RankscopeError
        If a shard is missing, lies outside the folder or lacks a tensor that the index names.
    """
    missing: Path | None = None
    for name in _candidates(folder):
        if not name.endswith(".json"):
            return open_weights_file(folder / name, trust=options.trust_pickle)
        listing = _weight_map(folder / name)
        absent = [s for s in sorted(set(listing.values())) if not (folder / s).is_file()]
        if not absent:
            return _open_shards(folder, listing, options)
        missing = missing or folder / absent[0]
    if missing is not None:
        raise RankscopeError("is missing, a shard that the index beside it names", path=missing)
    raise RankscopeError("holds no model.safetensors and no pytorch_model.bin", path=folder)


def _candidates(folder: Path) -> list[str]:
    """Names of the indices and files that may hold the weights, the best first."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
    found = [
        (form, match["variant"] or "", part, name)
        for form, patterns in enumerate(zip(INDICES, WHOLE, strict=True))
        for part, pattern in enumerate(patterns)
        for name in names
        if (match := pattern.fullmatch(name)) and (folder / name).is_file()
    ]
    return [name for *_, name in sorted(found)]


def _weight_map(index: Path) -> dict[str, str]:
    """File of every tensor, each beside the index."""
    listing = read_json(index).get("weight_map")
    if not isinstance(listing, dict) or not listing:
        raise RankscopeError("has no weight_map", path=index)
    for shard in set(map(str, listing.values())):
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise RankscopeError(f"names the shard {shard!r}, not a file beside it", path=index)
    return {name: str(shard) for name, shard in listing.items()}


def _open_shards(
    folder: Path, listing: dict[str, str], options: Options
) -> dict[str, StoredTensor]:
    held = {
        shard: open_weights_file(folder / shard, trust=options.trust_pickle)
        for shard in sorted(set(listing.values()))
    }
    for name, shard in listing.items():
        if name not in held[shard]:
            raise RankscopeError(
                f"is not in {shard}, where the index has it", path=folder, tensor=name
            )
    return {name: held[shard][name] for name, shard in listing.items()}


LAYOUT = Layout(
    "Hugging Face: model.safetensors or pytorch_model.bin, whole or in shards; also the Trainer's "
    "checkpoint-N",
    recognises,
    read,
)
