"""Hugging Face folders: weights, whole or in shards, with their ``config.json``.

Covers ``save_pretrained`` (safetensors, and the older ``.bin``), its variants such as
``model.fp16.safetensors``, the Trainer's ``checkpoint-N``, and this package's trainer, which puts
an ``adapter`` folder and ``gradients.safetensors`` beside the weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from rankscope.checkpoints.adapters.peft_adapter import on_base, read_adapter
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.adapters.separation import Parted
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.files.opened_file import Opened, together
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.weights_file import open_file
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.layouts.whole_weights import whole
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

# By preference. A variant has no hyphen, which tells it from a shard: `model-00001-of-00002`.
INDICES = (
    re.compile(r"model\.safetensors\.index(?P<variant>\.\w+)?\.json"),
    re.compile(r"pytorch_model\.bin\.index(?P<variant>\.\w+)?\.json"),
)
# Shards whose index was left behind say themselves how many there are.
SHARDS = (
    re.compile(r"model-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors"),
    re.compile(r"pytorch_model-(?P<number>\d{5})-of-(?P<count>\d{5})\.bin"),
)
WHOLE = (
    re.compile(r"model(?P<variant>\.\w+)?\.safetensors"),
    re.compile(r"pytorch_model(?P<variant>\.\w+)?\.bin"),
)


def recognises(folder: Path) -> bool:
    """Whether the folder holds the weights of a model."""
    return bool(_candidates(folder) or _shards(folder))


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged or a shard is missing.
    """
    adapter = Parted()
    if (folder / "adapter" / CONFIG).is_file():
        adapter = read_adapter(folder / "adapter", options)
    opened = open_all(folder, options)
    joined = on_base(adapter, opened.tensors)
    gradients = folder / "gradients.safetensors"
    return contents_of(
        "huggingface",
        joined.tensors,
        read_json(folder / "config.json"),
        options,
        adapters=joined.adapters,
        gradients=open_tensors(gradients) if gradients.is_file() else None,
        skips=(*opened.skips, *joined.skips),
        notes=(*opened.notes, *joined.notes),
        aside=(*opened.aside, *joined.aside),
    )


def open_weights(folder: Path, options: Options = DEFAULT) -> dict[str, Tensor]:
    """Tensors of the model by name; what else its files hold is in `open_all`."""
    return dict(open_all(folder, options).tensors)


def open_all(folder: Path, options: Options = DEFAULT) -> Opened:
    """All tensors of the first that is whole of the files that may hold the weights.

    Safetensors come before ``.bin``, weights without a variant before a variant, and an index of
    shards before a single file, which may be older.

    Raises
    ------
    RankscopeError
        If a shard is missing, lies outside the folder or lacks a tensor that the index names; or if
        the weights are empty or flattened, as sharded training leaves them.
    """
    return whole(_open_first(folder, options), str(folder))


def _open_first(folder: Path, options: Options) -> Opened:
    missing: Path | None = None
    for name in _candidates(folder):
        if not (folder / name).is_file():
            continue  # a link that leads nowhere
        if not name.endswith(".json"):
            return open_file(folder / name, trust=options.trust_pickle)
        listing = _weight_map(folder / name)
        absent = [s for s in sorted(set(listing.values())) if not (folder / s).is_file()]
        if not absent:
            return _open_shards(folder, listing, options)
        missing = missing or folder / absent[0]
    if missing is not None:
        raise RankscopeError("is missing, a shard that the index beside it names", path=missing)
    shards = _shards(folder)
    if shards:
        return _open_without_index(folder, shards, options)
    for name in _candidates(folder):
        raise RankscopeError("is not a file, nor a link to one", path=folder / name)
    raise RankscopeError("holds no model.safetensors and no pytorch_model.bin", path=folder)


def _candidates(folder: Path) -> list[str]:
    """Names of the indices and files that may hold the weights, the best first."""
    names = _names(folder)
    found = [
        (form, match["variant"] or "", part, name)
        for form, patterns in enumerate(zip(INDICES, WHOLE, strict=True))
        for part, pattern in enumerate(patterns)
        for name in names
        if (match := pattern.fullmatch(name))
    ]
    return [name for *_, name in sorted(found)]


def _shards(folder: Path) -> list[re.Match[str]]:
    """Names of shards, of the one form or the other.

    They are a checkpoint if a config lies beside them, or as many are there as they say: else a
    shard that was left among other files would stand for all of them.
    """
    for pattern in SHARDS:
        found = [match for name in _names(folder) if (match := pattern.fullmatch(name))]
        if found and (len(found) == int(found[0]["count"]) or (folder / "config.json").exists()):
            return found
    return []


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _open_without_index(folder: Path, shards: list[re.Match[str]], options: Options) -> Opened:
    """Shards without their index, if as many are there as their names say."""
    count = int(shards[-1]["count"])
    absent = set(range(1, count + 1)) - {int(shard["number"]) for shard in shards}
    if absent or len(shards) != count:
        what = f"number {min(absent)} is missing" if absent else "they are of different counts"
        message = f"has {len(shards)} shards of {count} and no index: {what}"
        raise RankscopeError(message, path=folder, reason="missing-shard")
    opened = [open_file(folder / one[0], trust=options.trust_pickle) for one in shards]
    return together(opened, {n: t for one in opened for n, t in one.tensors.items()})


def _weight_map(index: Path) -> dict[str, str]:
    """File of every tensor, each beside the index."""
    listing = read_json(index).get("weight_map")
    if not isinstance(listing, dict) or not listing:
        raise RankscopeError("has no weight_map", path=index)
    for shard in set(map(str, listing.values())):
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise RankscopeError(f"names the shard {shard!r}, not a file beside it", path=index)
    return {name: str(shard) for name, shard in listing.items()}


def _open_shards(folder: Path, listing: dict[str, str], options: Options) -> Opened:
    """The tensors of all shards, those too that the index does not name."""
    held = {
        shard: open_file(folder / shard, trust=options.trust_pickle)
        for shard in sorted(set(listing.values()))
    }
    for name, shard in listing.items():
        if name not in held[shard].tensors and all(
            one.tensor.name != name for one in held[shard].aside
        ):
            raise RankscopeError(
                f"is not in {shard}, where the index has it", path=folder, tensor=name
            )
    in_order = (name for name, shard in listing.items() if name in held[shard].tensors)
    tensors = {name: held[listing[name]].tensors[name] for name in in_order}
    for one in held.values():
        tensors = dict(one.tensors) | tensors
    return together(held.values(), tensors)


LAYOUT = Layout(
    "Hugging Face: model.safetensors or pytorch_model.bin, whole or in shards; also the Trainer's "
    "checkpoint-N",
    recognises,
    read,
)
