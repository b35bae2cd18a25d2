"""Hugging Face folders: weights, in one file or in shards, with their ``config.json``.

Covers ``save_pretrained`` (safetensors and the older ``.bin``), its variants such as
``model.fp16.safetensors``, the Trainer's ``checkpoint-N``, and this package's trainer, which puts
an ``adapter`` folder and ``gradients.safetensors`` beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.adapters.peft_adapter import (
    WEIGHTS,
    is_adapter,
    on_base,
    read_adapter,
)
from rankscope.checkpoints.adapters.separation import Parted
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.opened_file import Opened, together, whole
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.weights_file import open_file
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.layouts.sentence_modules import open_modules
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError, printable

MAX_NAME = 255  # bytes of the name of a file
# The preferred first. A variant has no hyphen, unlike a shard: `model-00001-of-00002`.
INDICES = (
    re.compile(r"model\.safetensors\.index(?P<variant>\.\w+)?\.json"),
    re.compile(r"pytorch_model\.bin\.index(?P<variant>\.\w+)?\.json"),
)
# Shards without their index say in their names how many there are.
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
    if is_adapter(folder / "adapter"):
        adapter = read_adapter(folder / "adapter", options)
    elif {*_names(folder)} & {*WEIGHTS}:  # without a config, or this were a folder of PEFT's
        adapter = read_adapter(folder, options)
    opened = _with_modules(open_all(folder, options), folder, options)
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


def _with_modules(opened: Opened, folder: Path, options: Options) -> Opened:
    modules = open_modules(folder, options)
    return together((opened, modules), {**opened.tensors, **modules.tensors})


def open_weights(folder: Path, options: Options = DEFAULT) -> dict[str, Tensor]:
    """Tensors of the model by name; `open_all` also has what else its files hold."""
    return dict(open_all(folder, options).tensors)


def open_all(folder: Path, options: Options = DEFAULT) -> Opened:
    """All tensors of the weights: of the first file or index that has all it needs.

    Safetensors are preferred to ``.bin``, weights without a variant to a variant, and an index of
    shards to a single file, which may be older.

    Raises
    ------
    RankscopeError
        If a shard is missing, is outside the folder or lacks a tensor that the index names; or if
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
        raise RankscopeError("is missing, but the index beside it lists this shard", path=missing)
    shards = _shards(folder)
    if shards:
        return _open_without_index(folder, shards, options)
    for name in _candidates(folder):
        raise RankscopeError("is neither a file nor a link to one", path=folder / name)
    message = "holds neither model.safetensors nor pytorch_model.bin"
    raise RankscopeError(message, path=folder)


def _candidates(folder: Path) -> list[str]:
    """Names of the indices and files that may hold the weights, the best first."""
    names = _names(folder)
    candidates = [
        (form, match["variant"] or "", part, name)
        for form, patterns in enumerate(zip(INDICES, WHOLE, strict=True))
        for part, pattern in enumerate(patterns)
        for name in names
        if (match := pattern.fullmatch(name))
    ]
    return [name for *_, name in sorted(candidates)]


def _shards(folder: Path) -> list[re.Match[str]]:
    """Names of shards, all of the same form.

    They are a checkpoint if there is a config beside them or if they are as many as they say.
    Otherwise one shard left among other files would pass for all of them.
    """
    for pattern in SHARDS:
        shards = [match for name in _names(folder) if (match := pattern.fullmatch(name))]
        if shards and (len(shards) == int(shards[0]["count"]) or (folder / "config.json").exists()):
            return shards
    return []


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _open_without_index(folder: Path, shards: list[re.Match[str]], options: Options) -> Opened:
    """Shards without their index, if there are as many as their names say."""
    count = int(shards[-1]["count"])
    absent = set(range(1, count + 1)) - {int(shard["number"]) for shard in shards}
    if absent or len(shards) != count:
        what = f"number {min(absent)} is missing" if absent else "their names differ in the total"
        message = f"has {len(shards)} of {count} shards and no index: {what}"
        raise RankscopeError(message, path=folder, reason="missing-shard")
    held = {one[0]: open_file(folder / one[0], trust=options.trust_pickle) for one in shards}
    _check_once(held, folder)
    return together(held.values(), {n: t for one in held.values() for n, t in one.tensors.items()})


def _weight_map(index: Path) -> dict[str, str]:
    """The file of every tensor; each must be beside the index."""
    listing = read_json(index).get("weight_map")
    if not isinstance(listing, dict) or not listing:
        raise RankscopeError("has no weight_map", path=index)
    for shard in listing.values():
        if not _is_beside(shard):
            shown = repr(printable(str(shard)))
            raise RankscopeError(f"lists the shard {shown}, not a file beside it", path=index)
    return dict(listing)


def _is_beside(shard: object) -> bool:
    """Whether an entry of an index can be the name of a file beside it."""
    if not isinstance(shard, str) or shard in ("", ".", "..") or "\0" in shard:
        return False
    return Path(shard).name == shard and len(shard.encode(errors="replace")) <= MAX_NAME


def _open_shards(folder: Path, listing: dict[str, str], options: Options) -> Opened:
    """The tensors of all shards, including those that the index does not list."""
    held = {
        shard: open_file(folder / shard, trust=options.trust_pickle)
        for shard in sorted(set(listing.values()))
    }
    _check_once(held, folder)
    for name, shard in listing.items():
        if name not in held[shard].tensors and all(
            one.tensor.name != name for one in held[shard].aside
        ):
            raise RankscopeError(
                f"is not in {printable(shard)}, where the index has it", path=folder, tensor=name
            )
    in_order = (name for name, shard in listing.items() if name in held[shard].tensors)
    tensors = {name: held[listing[name]].tensors[name] for name in in_order}
    for one in held.values():
        tensors = dict(one.tensors) | tensors
    opened = together(held.values(), tensors)
    return replace(opened, skips=(*opened.skips, *_unlisted(folder, held)))


def _unlisted(folder: Path, listed: Collection[str]) -> Iterator[Skip]:
    """A skip for every shard that the index leaves out: of as many as those that it lists."""
    message = "is a shard beside an index that does not list it: its tensors are not read"
    for pattern in SHARDS:
        shards = [match for name in _names(folder) if (match := pattern.fullmatch(name))]
        counts = {shard["count"] for shard in shards if shard[0] in listed}
        for shard in shards:
            if shard["count"] in counts and shard[0] not in listed:
                yield Skip(str(folder / shard[0]), "", "unlisted-shard", message)


def _check_once(held: Mapping[str, Opened], folder: Path) -> None:
    """Refuse a tensor that two shards hold: a loader of all of them keeps the last."""
    places: dict[str, str] = {}
    for shard, opened in held.items():
        for name in opened.tensors:
            if name in places:
                both = f"{printable(places[name], limit=80)} and {printable(shard, limit=80)}"
                raise RankscopeError(
                    f"is in two shards, {both}: it is not certain which of them counts",
                    path=folder,
                    tensor=name,
                    reason="duplicate-tensor",
                )
            places[name] = shard


LAYOUT = Layout(
    "Hugging Face: model.safetensors or pytorch_model.bin, whole or in shards; also the Trainer's "
    "checkpoint-N",
    recognises,
    read,
)
