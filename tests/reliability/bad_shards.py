"""Trouble with shards, indices and links."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from safetensors.numpy import save_file

from tests.reliability.bad_configs import with_adapter
from tests.reliability.spoiled_run import (
    ANSI,
    DEEP,
    DEVICE,
    FIFO,
    FOLDER,
    NO_FILE,
    NOWHERE,
    STEPS,
    UP,
    Make,
    Q,
    fine,
    holding,
    link_to,
    moved,
    of,
    replaced,
    skipped,
    step_2,
    weights,
    write_step,
)


def outside(run: Path) -> Path:
    """A healthy checkpoint that is not below the run."""
    folder = run.parent / "elsewhere"
    if not folder.exists():
        write_step(folder, 2)
    return folder


def linked_outside(run: Path, name: str) -> None:
    """Make a file of step 2 a link out of the run."""
    replaced(run, name, link_to(outside(run) / name))


def sharded(folder: Path, *, index: bool = True, step: int = 2) -> None:
    """Store a step as two shards."""
    (folder / "model.safetensors").unlink()
    listing = {}
    for number, (name, tensor) in enumerate(weights(step).items(), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensor}, folder / shard)
        listing[name] = shard
    if index:
        write_index(folder, {"weight_map": listing})


def write_index(folder: Path, content: object) -> None:
    """Write the index of shards."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "model.safetensors.index.json").write_text(text)


def index_says(run: Path, content: object) -> None:
    """Store step 2 as shards with an index of this content."""
    sharded(step_2(run), index=False)
    write_index(step_2(run), content)


def mapped_to(run: Path, target: object) -> None:
    """Let the index of step 2 name this as the shard of the query matrix."""
    sharded(step_2(run))
    shard = "model-00002-of-00002.safetensors"
    write_index(step_2(run), {"weight_map": {f"{Q}.weight": target, f"{UP}.weight": shard}})


def shard_is(run: Path, make: Make) -> None:
    """Put something else in place of the second shard of step 2."""
    sharded(step_2(run))
    replaced(run, "model-00002-of-00002.safetensors", make)


SHARDS = of(
    "shards",
    fine("in order", lambda r: sharded(step_2(r))),
    fine("in order, without an index", lambda r: sharded(step_2(r), index=False)),
    skipped("one is missing", lambda r: shard_is(r, lambda _: None), "is missing, but the index"),
    skipped(
        "one is missing, and the index",
        lambda r: (
            sharded(step_2(r), index=False),
            (step_2(r) / "model-00001-of-00002.safetensors").unlink(),
        ),
        "number 1 is missing",
        reason="missing-shard",
    ),
    skipped("one is a FIFO", lambda r: shard_is(r, FIFO), "00002-of-00002"),
    skipped("one is a folder", lambda r: shard_is(r, FOLDER), "00002-of-00002"),
    skipped("one is a device", lambda r: shard_is(r, DEVICE), "00002-of-00002"),
    skipped("one leads nowhere", lambda r: shard_is(r, NOWHERE), "00002-of-00002"),
    skipped(
        "one is a loop of links",
        lambda r: shard_is(r, link_to("model-00002-of-00002.safetensors")),
        "00002-of-00002",
    ),
    skipped("one is empty", lambda r: shard_is(r, holding(b"")), "00002-of-00002", reason="empty"),
    skipped(
        "one holds what another does",
        lambda r: shard_is(r, lambda p: save_file(weights(2), p)),
        "in two shards",
        reason="duplicate-tensor",
    ),
)
INDICES = of(
    "indices",
    skipped("not JSON", lambda r: index_says(r, "weight_map"), "not valid JSON"),
    skipped("deep", lambda r: index_says(r, DEEP), "not valid JSON"),
    skipped("a list", lambda r: index_says(r, []), "index.json"),
    skipped("without a map", lambda r: index_says(r, {}), "weight_map"),
    skipped("with an empty map", lambda r: index_says(r, {"weight_map": {}}), "weight_map"),
    skipped("with a list for a map", lambda r: index_says(r, {"weight_map": ["a"]}), "weight_map"),
    fine(
        "a wrong size",
        lambda r: (
            sharded(step_2(r)),
            write_index(
                step_2(r),
                json.loads((step_2(r) / "model.safetensors.index.json").read_text())
                | {"metadata": {"total_size": 10**30}},
            ),
        ),
    ),
    skipped(
        "a tensor that no shard has",
        lambda r: index_says(r, {"weight_map": {"another": "model-00001-of-00002.safetensors"}}),
        "'another'",
    ),
    skipped(
        "a tensor in the other shard",
        lambda r: mapped_to(r, "model-00002-of-00002.safetensors"),
        "where the index has it",
    ),
    *(
        skipped(f"a shard {name}", partial(mapped_to, target=target), "not a file beside it")
        for name, target in {
            "above": "../checkpoint-1/model.safetensors",
            "by its whole path": "/etc/passwd",
            "below": "sub/model.safetensors",
            "with a NUL": "a\x00b",
            "that is the folder": ".",
            "that is the folder above": "..",
            "without a name": "",
            "of 5000 characters": "x" * 5000,
        }.items()
    ),
    skipped("a shard that is null", partial(mapped_to, target=None), "not a file beside it"),
    skipped("a shard that is a number", partial(mapped_to, target=7), "not a file beside it"),
    skipped("a shard that is a list", partial(mapped_to, target=["a"]), "not a file beside it"),
    skipped("a shard of terminal codes", partial(mapped_to, target=f"{ANSI}.safetensors"), "x1b"),
)
LINKS = of(
    "links",
    skipped(
        "weights that lead nowhere", lambda r: replaced(r, "model.safetensors", NOWHERE), NO_FILE
    ),
    skipped(
        "weights that are a loop",
        lambda r: replaced(r, "model.safetensors", link_to("model.safetensors")),
        NO_FILE,
    ),
    fine(
        "weights within the run",
        lambda r: replaced(r, "model.safetensors", link_to("../checkpoint-1/model.safetensors")),
    ),
    skipped(
        "weights outside",
        lambda r: linked_outside(r, "model.safetensors"),
        "leads out of the folder",
        reason="outside",
    ),
    skipped(
        "a config outside",
        lambda r: linked_outside(r, "config.json"),
        "leads out of the folder",
        reason="outside",
    ),
    skipped(
        "a state outside",
        lambda r: linked_outside(r, "trainer_state.json"),
        "leads out of the folder",
        reason="outside",
        steps=STEPS,
    ),
    skipped(
        "a shard outside",
        lambda r: shard_is(r, link_to(outside(r) / "model.safetensors")),
        "leads out of the folder",
        reason="outside",
    ),
    skipped(
        "an adapter outside",
        lambda r: (
            with_adapter(r),
            (step_2(r) / "adapter").rename(r.parent / "adapter"),
            (step_2(r) / "adapter").symlink_to(r.parent / "adapter"),
        ),
        "leads out of the folder",
        reason="outside",
    ),
    skipped(
        "the folder of a step outside",
        lambda r: (moved(r, "../elsewhere"), step_2(r).symlink_to("../elsewhere")),
        "leads out of the folder",
        reason="link",
    ),
    fine(
        "a log outside",
        lambda r: (
            (r.parent / "log").write_text('{"step": 1, "loss": 666}'),
            (r / "metrics.jsonl").symlink_to(r.parent / "log"),
        ),
    ),
)
