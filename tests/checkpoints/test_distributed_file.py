"""What torch saves in pieces is read back, and nothing in it runs."""

import dataclasses
import json
import os
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed._shard.sharded_tensor.metadata import TensorProperties as OldProperties
from torch.distributed.checkpoint import FileSystemWriter, HuggingFaceStorageWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from rankscope import open_run
from rankscope.checkpoints.files import distributed_file
from rankscope.checkpoints.files.distributed_file import open_distributed
from rankscope.checkpoints.files.safetensors_file import open_shards
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.pieces import Pieces
from rankscope.errors import RankscopeError

WIDTH, HIDDEN, HEADS, KV_HEADS, VOCABULARY = 16, 24, 4, 2, 20
Tensors = dict[str, torch.Tensor]


class Split(torch.Tensor):
    """A tensor that torch saves in pieces, as it does those that processes share.

    ``cuts`` has, for every axis, where the pieces begin.
    """

    cuts: tuple[tuple[int, ...], ...]

    def boxes(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Start and shape of the pieces."""
        spans = [pairwise((*c, n)) for c, n in zip(self.cuts, self.shape, strict=True)]
        return [(tuple(a for a, _ in box), tuple(b - a for a, b in box)) for box in product(*spans)]

    def __create_write_items__(self, name: str, _: object) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(name, start, i),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(torch.Size(start), torch.Size(shape)),
                    properties=TensorProperties.create_from_tensor(self),
                    size=self.size(),
                ),
            )
            for i, (start, shape) in enumerate(self.boxes())
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(torch.Size(a), torch.Size(n)) for a, n in self.boxes()]

    def __get_tensor_shard__(self, index: MetadataIndex) -> torch.Tensor:
        shape = dict(self.boxes())[tuple(index.offset or ())]
        place = tuple(slice(a, a + n) for a, n in zip(index.offset or (), shape, strict=True))
        return self.as_subclass(torch.Tensor)[place].clone()


def split(tensor: torch.Tensor, *cuts: tuple[int, ...]) -> torch.Tensor:
    made = tensor.as_subclass(Split)
    made.cuts = cuts
    return made


def save(folder: Path, state: dict[str, Any], *, one_file: bool = True) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it saves in a single process
        dcp.save(
            state,
            storage_writer=FileSystemWriter(
                folder, single_file_per_rank=one_file, sync_files=False
            ),
            no_dist=True,
        )


def rewrite(folder: Path, change: Callable[[Metadata], Any]) -> None:
    """Let ``change`` alter the metadata or return another object."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(metadata) or metadata))


def place_of(metadata: Metadata, name: str) -> _StorageInfo:
    return next(info for index, info in metadata.storage_data.items() if index.fqn == name)


def titan_weights(layers: int = 2) -> Tensors:
    """Weights under torchtitan's names."""
    shapes = {
        "attention.wq": (WIDTH, WIDTH),
        "attention.wk": (WIDTH // 2, WIDTH),
        "attention.wv": (WIDTH // 2, WIDTH),
        "attention.wo": (WIDTH, WIDTH),
        "feed_forward.w1": (HIDDEN, WIDTH),
        "feed_forward.w2": (WIDTH, HIDDEN),
        "feed_forward.w3": (HIDDEN, WIDTH),
    }
    names = {f"layers.{i}.{n}.weight": shape for i in range(layers) for n, shape in shapes.items()}
    names |= {"tok_embeddings.weight": (VOCABULARY, WIDTH), "output.weight": (VOCABULARY, WIDTH)}
    return {name: torch.randn(shape) for name, shape in names.items()} | {
        "norm.weight": torch.ones(WIDTH)
    }


def olmo_weights() -> Tensors:
    """Weights under OLMo-core's names."""
    renamed = {
        "layers": "blocks", "wq": "w_q", "wk": "w_k", "wv": "w_v", "wo": "w_out",
        "tok_embeddings": "embeddings", "output": "lm_head.w_out", "norm": "lm_head.norm",
    }  # fmt: skip
    return {
        ".".join(renamed.get(part, part) for part in name.split(".")): tensor
        for name, tensor in titan_weights().items()
    }


def adam(weights: Tensors) -> dict[str, Any]:
    """Optimizer state, with values that no weight has."""
    other = {name: w.as_subclass(torch.Tensor) + 9 for name, w in weights.items()}
    state = {
        name: {"exp_avg": w, "exp_avg_sq": w.clone(), "main": w.clone(), "step": torch.tensor(3.0)}
        for name, w in other.items()
    }
    return {"state": state, "param_groups": [{"lr": 1e-3}]}


def assert_same(found: Any, expected: Tensors) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape)
        values, wanted = found[name].read(), tensor.as_subclass(torch.Tensor).detach()
        wanted = wanted.float() if wanted.dtype == torch.bfloat16 else wanted
        assert values.dtype == wanted.numpy().dtype
        assert (values == wanted.numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("one_file", [True, False])
def test_what_is_read_is_what_was_saved(tmp_path: Path, dtype: torch.dtype, one_file: bool) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in titan_weights().items()}
    weights |= {"turned": torch.randn(5, 3).to(dtype).T, "scalar": torch.tensor(2.0, dtype=dtype)}
    weights["part"] = torch.randn(8, 8).to(dtype)[2:5, 1:3]
    weights["empty"] = torch.empty(0, 4, dtype=dtype)
    save(tmp_path, weights, one_file=one_file)
    opened = open_distributed(tmp_path)
    assert_same(opened.tensors, weights)
    assert not opened.aside and not opened.skips


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [
        ((7, 5), ((0, 3), (0,))),
        ((7, 5), ((0, 1, 2, 3, 4, 5, 6), (0,))),
        ((7, 5), ((0,), (0, 2, 4))),
        ((7, 5), ((0, 2, 5), (0, 4))),
        ((9,), ((0, 4, 8),)),
        ((4, 3, 5), ((0, 1, 3), (0,), (0,))),
        ((4, 3, 5), ((0, 2), (0,), (0, 3))),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pieces_are_joined(
    tmp_path: Path, shape: tuple[int, ...], cuts: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> None:
    whole = torch.randn(shape).to(dtype)
    save(tmp_path, {"w": split(whole.clone(), *cuts)}, one_file=False)
    found = open_distributed(tmp_path).tensors
    assert isinstance(found["w"], Pieces)
    assert len(found["w"].paths) == np.prod([len(cut) for cut in cuts])
    assert_same(found, {"w": whole})
    flat = whole.float().flatten().numpy()
    rng = np.random.default_rng(5)
    for start, stop in [
        (0, 0),
        (3, 3),
        (0, flat.size),
        *np.sort(rng.integers(flat.size, size=(20, 2))),
    ]:
        assert (found["w"].elements(start, stop) == flat[start:stop]).all()


def test_only_the_pieces_that_are_asked_for_are_read(tmp_path: Path) -> None:
    whole = torch.randn(6, 4)
    save(tmp_path, {"w": split(whole.clone(), (0, 2, 4), (0,))}, one_file=False)
    tensor = open_distributed(tmp_path).tensors["w"]
    for path in (tensor.paths[0], tensor.paths[2]):
        Path(path).unlink()
    assert (tensor.elements(9, 16) == whole.flatten()[9:16].numpy()).all()
    with pytest.raises(RankscopeError, match="distcp"):
        tensor.elements(7, 16)


def test_opening_reads_no_piece_and_the_result_can_be_pickled(tmp_path: Path) -> None:
    weights = titan_weights()
    weights["layers.0.attention.wq.weight"] = split(torch.randn(WIDTH, WIDTH), (0, 8), (0,))
    save(tmp_path, {"model": weights, "optimizer": adam(weights)})
    (file,) = tmp_path.glob("*.distcp")
    held = file.read_bytes()
    file.write_bytes(bytes(len(held)))
    found = open_distributed(tmp_path).tensors
    file.write_bytes(held)
    sent = pickle.loads(pickle.dumps(found))
    assert_same(sent, weights)
    assert len(pickle.dumps(found)) < len(held) / 4


@pytest.mark.parametrize(
    ("keys", "inner"),
    [
        ((), ""),
        ((), "model."),
        (("model",), ""),
        (("model",), "model."),
        (("app", "model"), "_orig_mod."),
        (("state_dict",), "net."),
    ],
)
def test_names_lose_keys_of_the_checkpoint_but_not_of_the_model(
    tmp_path: Path, keys: tuple[str, ...], inner: str
) -> None:
    weights = {f"{inner}{name}": tensor for name, tensor in titan_weights(1).items()}
    state: dict[str, Any] = dict(weights)
    for key in reversed(keys):
        state = {key: state}
    save(tmp_path, {**state, "lr": torch.ones(3), "step": 5})
    assert_same(open_distributed(tmp_path).tensors, weights | {"lr": torch.ones(3)})


def test_no_tensor_takes_the_name_of_another(tmp_path: Path) -> None:
    weights = {"model.norm.weight": torch.ones(4), "model.w.weight": torch.randn(4, 4)}
    model = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save(tmp_path, {"model": model, "norm.weight": torch.zeros(4)})
    assert_same(open_distributed(tmp_path).tensors, weights | {"norm.weight": torch.zeros(4)})


@pytest.mark.parametrize("key", ["optim", "optimizer", "optimizers", "optimizer_0"])
@pytest.mark.parametrize("flat", [True, False])
def test_the_optimizer_is_not_opened(tmp_path: Path, key: str, flat: bool) -> None:
    weights = titan_weights(1)
    state: dict[str, Any] = {key: adam(weights)}
    if flat:
        moments = state[key]["state"].items()
        state = {f"{key}.state.{n}.{k}": v for n, entry in moments for k, v in entry.items()}
    save(tmp_path, {**weights, **state}, one_file=False)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    for index, info in metadata.storage_data.items():
        if index.fqn not in weights:
            (tmp_path / info.relative_path).unlink()
    assert_same(open_distributed(tmp_path).tensors, weights)


def test_formats_other_than_those_of_weights_are_reported(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.randn(4, 4),
        "b.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fnuz),
        "c.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn),
        "d.weight": torch.zeros(4, 4, dtype=torch.int8),
    }
    save(tmp_path, tensors)
    contents = LAYOUTS["dcp"].read(tmp_path, open_run(tmp_path).checkpoints[0].options)
    assert set(contents.parameters) == {"a.weight"}
    skips = {skip.tensor: skip.reason for skip in contents.skips}
    assert skips == dict.fromkeys(("b.weight", "c.weight", "d.weight"), "quantised")


def test_classes_of_other_modules_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = titan_weights(1)
    save(tmp_path, weights)
    name = "olmo_core.distributed.checkpoint.filesystem"
    fields = ["relative_path", "offset", "length"]
    theirs = dataclasses.make_dataclass("_StorageInfo", fields, namespace={"__module__": name})
    module = types.ModuleType(name)
    module._StorageInfo = theirs  # type: ignore[attr-defined]
    parts = name.split(".")
    with monkeypatch.context() as patch:
        for i in range(1, len(parts)):
            patch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType(parts[i - 1]))
        patch.setitem(sys.modules, name, module)

        def change(metadata: Metadata) -> None:
            for entry in metadata.state_dict_metadata.values():
                old = OldProperties(dtype=torch.float32)
                entry.properties = old  # type: ignore[union-attr,assignment]
            for index, info in metadata.storage_data.items():
                metadata.storage_data[index] = theirs(*(getattr(info, f) for f in fields))

        rewrite(tmp_path, change)
    assert name not in sys.modules
    assert b"olmo_core" in (tmp_path / ".metadata").read_bytes()
    assert_same(open_distributed(tmp_path).tensors, weights)


class Hostile:
    """Runs a command as soon as Python's unpickler meets it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["planner_data", "storage_meta", "version", "whole"])
def test_code_in_the_metadata_is_refused_and_does_not_run(tmp_path: Path, where: str) -> None:
    save(tmp_path, titan_weights(1))
    mark = tmp_path / "mark"

    def change(metadata: Metadata) -> Any:
        if where == "whole":
            return Hostile(f"touch {mark}")
        setattr(metadata, where, Hostile(f"touch {mark}"))
        return None

    rewrite(tmp_path, change)
    with pytest.raises(RankscopeError, match=r"posix\.system") as caught:
        open_distributed(tmp_path)
    assert caught.value.reason == "unsafe-pickle"
    assert str(tmp_path / ".metadata") in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 700, -1])
def test_damaged_metadata_is_named(tmp_path: Path, kept: int) -> None:
    save(tmp_path, titan_weights(1))
    path = tmp_path / ".metadata"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RankscopeError, match="metadata"):
        open_distributed(tmp_path)


@pytest.mark.parametrize("found", [{"a": 1}, None, [1], "text"])
def test_another_pickle_is_not_metadata(tmp_path: Path, found: object) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps(found))
    with pytest.raises(RankscopeError, match="not the metadata of a distributed checkpoint"):
        open_distributed(tmp_path)


def _set_chunk(metadata: Metadata, start: tuple[int, ...], shape: tuple[int, ...]) -> None:
    chunk = ChunkStorageMetadata(torch.Size(start), torch.Size(shape))
    metadata.state_dict_metadata["w"].chunks[0] = chunk  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.storage_data.clear(), "does not say where it is stored"),
        (lambda m: setattr(m, "storage_data", None), "does not say where it is stored"),
        (lambda m: setattr(place_of(m, "w"), "relative_path", "../x"), "not a file beside it"),
        (lambda m: setattr(place_of(m, "w"), "relative_path", ".."), "not a file beside it"),
        (lambda m: setattr(place_of(m, "w"), "relative_path", "/etc/passwd"), "not a file beside"),
        (lambda m: setattr(place_of(m, "w"), "relative_path", 5), "not a file beside it"),
        (lambda m: setattr(place_of(m, "w"), "length", 10**15), "is cut short"),
        (lambda m: setattr(place_of(m, "w"), "length", 3), "3 bytes for a piece that takes"),
        (lambda m: setattr(place_of(m, "w"), "offset", -4), "non-negative integers"),
        (
            lambda m: setattr(place_of(m, "w"), "transform_descriptors", ["zstd"]),
            "transformed by zstd",
        ),
        (lambda m: _set_chunk(m, (0, 0), (2, 4)), "do not make up its shape"),
        (lambda m: _set_chunk(m, (0, 0), (9, 9)), "takes|reaches beyond"),
        (lambda m: _set_chunk(m, (0, 0, 0), (4, 4, 1)), "does not say where|reaches beyond"),
        (lambda m: m.state_dict_metadata["w"].chunks.clear(), "do not make up its shape"),
        (lambda m: setattr(m.state_dict_metadata["w"], "chunks", None), "entry is damaged"),
        (lambda m: setattr(m.state_dict_metadata["w"], "properties", 3), "entry is damaged"),
        (lambda m: setattr(m.state_dict_metadata["w"], "size", (4, "4")), "non-negative integers"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[Metadata], None], message: str
) -> None:
    save(tmp_path, {"w": torch.randn(4, 4), "v": torch.randn(2, 2)})
    rewrite(tmp_path, change)
    with pytest.raises(RankscopeError, match=message) as caught:
        open_distributed(tmp_path)
    assert caught.value.tensor == "w"
    assert caught.value.path is not None and caught.value.path.startswith(str(tmp_path))


def test_pieces_that_overlap_are_refused(tmp_path: Path) -> None:
    save(tmp_path, {"w": split(torch.randn(4, 4), (0, 2), (0,))})

    def change(metadata: Metadata) -> None:
        entry = metadata.state_dict_metadata["w"]
        entry.chunks[1].offsets = torch.Size((1, 0))  # type: ignore[union-attr]
        index = next(i for i in metadata.storage_data if i.offset == (2, 0))
        metadata.storage_data[MetadataIndex("w", (1, 0))] = metadata.storage_data[index]

    rewrite(tmp_path, change)
    with pytest.raises(RankscopeError, match="'w': its pieces do not make up"):
        open_distributed(tmp_path)


def test_missing_and_short_files_are_named_with_the_tensor(tmp_path: Path) -> None:
    save(tmp_path, {"w": split(torch.randn(6, 4), (0, 2, 4), (0,))}, one_file=False)
    path = tmp_path / "__0_1.distcp"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(RankscopeError, match=r"__0_1\.distcp: 'w': is cut short"):
        open_distributed(tmp_path)
    path.unlink()
    with pytest.raises(RankscopeError, match=r"__0_1\.distcp: 'w': is missing"):
        open_distributed(tmp_path)


def test_a_piece_that_contradicts_the_metadata_is_refused_on_reading(
    tmp_path: Path,
) -> None:
    save(tmp_path, {"w": torch.randn(4, 4), "v": torch.randn(4, 4).double()})

    def change(metadata: Metadata) -> None:
        ours, other = place_of(metadata, "w"), place_of(metadata, "v")
        ours.offset, ours.length = other.offset, other.length

    rewrite(tmp_path, change)
    tensor = open_distributed(tmp_path).tensors["w"]
    with pytest.raises(RankscopeError, match="'w': does not hold the float32"):
        tensor.read()
    file = tmp_path / "__0_0.distcp"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(RankscopeError, match="distcp"):
        open_distributed(tmp_path).tensors["v"].read()


def test_a_torchtitan_run_opens_without_the_step_being_saved(tmp_path: Path) -> None:
    run = tmp_path / "outputs"
    written = {}
    for step in (10, 20, 100):
        written[step] = titan_weights()
        state = {**written[step], "optimizer": adam(written[step]), "train_state": {"step": step}}
        save(run / "checkpoint" / f"step-{step}", state)
    (run / "checkpoint" / "step-100" / ".metadata").unlink()
    opened = open_run(run)
    assert opened.steps == (10, 20, 100)  # the one that is being saved keeps its place
    assert {checkpoint.step_source for checkpoint in opened} == {"folder"}
    with pytest.raises(RankscopeError, match="is still being saved"):
        opened[100].read()
    for step in opened.steps[:2]:
        parameters = opened[step].contents.parameters
        assert_same(
            {name: p.tensor for name, p in parameters.items()},
            {name: w for name, w in written[step].items() if w.ndim == 2},
        )
        assert parameters["layers.1.attention.wk.weight"].layer == 1
    with pytest.raises(RankscopeError, match="is still being saved"):
        open_run(run / "checkpoint" / "step-100")


def test_a_run_of_olmo_core_opens_with_its_config(tmp_path: Path) -> None:
    attention = {"name": "default", "n_heads": HEADS, "n_kv_heads": KV_HEADS, "bias": False}
    model = {"d_model": WIDTH, "n_layers": 2, "block": {"attention": attention}}
    weights = olmo_weights()
    for step in (0, 1000):
        folder = tmp_path / "run" / f"step{step}"
        save(folder / "model_and_optim", {"model": weights, "optim": adam(weights)})
        (folder / "train").mkdir()
        (folder / "train" / "rank0.pt").write_bytes(b"\x80")
        (folder / "config.json").write_text(json.dumps({"model": model, "trainer": {}}))
    run = open_run(tmp_path / "run")
    assert run.steps == (0, 1000)
    contents = run[1000].contents
    assert contents.layout == "dcp" and not contents.skips
    assert contents.heads is not None
    assert (contents.heads.count, contents.heads.kv_count) == (HEADS, KV_HEADS)
    assert contents.heads.size == WIDTH // HEADS
    assert_same(
        {name: p.tensor for name, p in contents.parameters.items()},
        {name: w for name, w in weights.items() if w.ndim == 2},
    )
    inner = open_run(tmp_path / "run" / "step1000" / "model_and_optim").checkpoints[0]
    assert inner.step == 1000 and inner.contents.heads == contents.heads


def test_a_sharded_step_of_the_trainer_with_fsdp_opens(tmp_path: Path) -> None:
    weights = {f"model.{name}": w for name, w in titan_weights(1).items()}
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        save(folder / "pytorch_model_fsdp_0", {"model": weights})
        save(folder / "optimizer_0", {"optimizer": adam(weights)})
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (tmp_path / "config.json").write_text(
        json.dumps({"hidden_size": WIDTH, "num_attention_heads": HEADS})
    )
    run = open_run(tmp_path)
    assert run.steps == (5, 10)
    contents = run[5].contents
    assert contents.heads is not None and contents.heads.count == HEADS
    assert set(contents.parameters) == {name for name, w in weights.items() if w.ndim == 2}


def save_shards(folder: Path, processes: list[Tensors], starts: list[dict[str, Any]]) -> None:
    """Have torch write one safetensors file per process."""
    for i, (tensors, offsets) in enumerate(zip(processes, starts, strict=True), start=1):
        own = folder / f"process-{i}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(
                tensors,
                storage_writer=HuggingFaceStorageWriter(str(own), save_distributed=True),
                no_dist=True,
            )
        (written,) = own.glob("*.safetensors")
        raw = written.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        note = json.loads(header["__metadata__"]["DCP_SHARDING_INFO"])
        note |= {name: {"saved_offsets": start} for name, start in offsets.items()}
        header["__metadata__"]["DCP_SHARDING_INFO"] = json.dumps(note)
        text = json.dumps(header).encode()
        name = written.name.replace("shard-00001", f"shard-{i:05d}")
        (folder / name).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
        written.unlink()


def test_pieces_in_safetensors_are_joined(tmp_path: Path) -> None:
    rows, columns, alone = torch.randn(5, 4), torch.randn(3, 6), torch.randn(2, 2)
    folder = tmp_path / "step-7" / "sharded"
    first = {"rows": rows[:3].clone(), "columns": columns[:, :4].clone(), "alone": alone}
    second = {"rows": rows[3:].clone(), "columns": columns[:, 4:].clone()}
    save_shards(folder, [first, second], [{}, {"rows": [3, 0], "columns": [0, 4]}])
    assert_same(open_shards(folder), {"rows": rows, "columns": columns, "alone": alone})
    run = open_run(tmp_path / "step-7")
    assert run.steps == (7,) and run.checkpoints[0].layout == "dcp"
    next(folder.glob("shard-00001-*")).unlink()
    with pytest.raises(RankscopeError, match="lacks the files shard-00001"):
        open_shards(folder)


def test_pieces_in_safetensors_that_leave_a_hole_are_refused(tmp_path: Path) -> None:
    half = {"rows": torch.randn(2, 4)}
    save_shards(tmp_path, [half, half], [{}, {"rows": [3, 0]}])
    with pytest.raises(RankscopeError, match="'rows': its pieces do not make up"):
        open_shards(tmp_path)


def test_other_folders_are_not_taken_for_distributed_checkpoints(tmp_path: Path) -> None:
    (tmp_path / ".metadata").mkdir()
    (tmp_path / "__0_0.distcp").write_bytes(b"")
    (tmp_path / "meta.pt").write_bytes(b"")
    assert layout_of(tmp_path) is None


def test_a_piece_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, {"w": torch.randn(4, 4)})
    calls = []
    real = distributed_file.open_saved_at

    def counted(*given: Any) -> Any:
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(distributed_file, "open_saved_at", counted)
    tensor = open_distributed(tmp_path).tensors["w"]
    assert not calls
    tensor.read()
    tensor.elements(0, 3)
    assert len(calls) == 1


@pytest.mark.parametrize("key", ["o", "solver", "trainer.deep"])
def test_an_optimizer_is_recognised_by_its_groups_under_any_key(key: str, tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    optimizer = {
        "state": {"fc.weight": {"momentum": torch.randn(6, 4), "step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 0.1, "params": ["fc.weight"]}],
    }
    nested: dict[str, Any] = optimizer
    for part in reversed(key.split(".")):
        nested = {part: nested}
    save(tmp_path, {"app": {"model": {"fc.weight": weight}, **nested}})
    opened = open_distributed(tmp_path)
    assert [t.shape for t in opened.tensors.values()] == [(6, 4)]
    assert {one.kind for one in opened.aside} == {"optimizer"} and len(opened.aside) == 2


def test_an_unknown_format_costs_only_its_tensor(tmp_path: Path) -> None:
    odd = torch.zeros(4, 4).to(torch.float8_e8m0fnu)
    save(tmp_path, {"fc.weight": torch.randn(6, 4), "fc.scale": odd})
    contents = LAYOUTS["dcp"].read(tmp_path, DEFAULT)
    assert set(contents.parameters) == {"fc.weight"}
    assert [skip.tensor for skip in contents.skips] == ["fc.scale"]
    assert {one.tensor: one.kind for one in contents.account}["fc.scale"] == "not understood"
