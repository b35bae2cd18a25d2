import argparse
import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files import zip_file
from rankscope.checkpoints.files.inert_names import Opaque
from rankscope.checkpoints.files.saved_tables import sorted_tables
from rankscope.checkpoints.files.torch_file import open_saved, open_saved_at
from rankscope.checkpoints.files.torch_tensors import ClosedTensor
from rankscope.checkpoints.layouts import layout_of
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError

FORMATS = {"zip": True, "before 1.6": False}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(params=FORMATS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Saves an object in each of the formats."""

    def save(found: Any) -> Path:
        path = tmp_path / "saved.pt"
        torch.save(found, path, _use_new_zipfile_serialization=FORMATS[request.param])
        return path

    return save


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().double().numpy().tobytes()


def same(found: Any, tensor: torch.Tensor) -> bool:
    """Whether the tensor that was opened has the bits of the one that was saved."""
    assert isinstance(found, StoredTensor)
    assert found.shape == tuple(tensor.shape)
    read = found.read()
    flat = read.reshape(-1)
    parts = np.concatenate([found.elements(0, 1), found.elements(1, flat.size)])
    assert parts.tobytes() == flat.tobytes()
    return read.astype(np.float64).tobytes() == bits(tensor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_tensor_is_read_with_the_bits_that_torch_wrote(saved: Any, dtype: torch.dtype) -> None:
    tensor = torch.randn(5, 7).to(dtype)
    tensor[0, :3] = torch.tensor([float("inf"), float("-inf"), 2.0**-14])
    found = open_saved(saved({"w": tensor})).content["w"]
    assert found.dtype == str(dtype).removeprefix("torch.") and found.strides is None
    assert same(found, tensor)
    assert (torch.from_numpy(found.read()).to(dtype) == tensor).all()


def test_views_are_read_from_their_place(saved: Any) -> None:
    whole = torch.arange(60.0).reshape(6, 10)
    views = {
        "transposed": whole.T,
        "rows": whole[2:4],
        "columns": whole[:, 3:7],
        "every other": whole[::2, 1::3],
        "permuted": whole.reshape(3, 4, 5).permute(2, 0, 1),
        "expanded": whole[0].expand(4, 10),
        "a row": whole[3],
    }
    found = open_saved(saved(views)).content
    assert all(same(found[name], view) for name, view in views.items())
    assert found["rows"].strides is None and found["transposed"].strides == (1, 10)
    assert open_saved(saved({"none": whole[:0]})).content["none"].read().shape == (0, 10)
    assert open_saved(saved({"one": whole[1, 1]})).content["one"].read() == 11


def test_tensors_that_share_a_storage_are_at_one_place(saved: Any) -> None:
    model = torch.nn.ModuleDict({"wte": torch.nn.Embedding(6, 4), "head": torch.nn.Linear(4, 6)})
    model["head"].weight = model["wte"].weight
    found = open_saved(saved(model.state_dict())).content
    assert found["wte.weight"].offset == found["head.weight"].offset
    assert found["wte.weight"].name == "wte.weight" and found["head.weight"].name == "head.weight"
    whole = torch.randn(4, 4)
    halves = open_saved(saved([whole[:2], whole[2:]])).content
    assert halves[1].offset - halves[0].offset == 32


def test_objects_come_back_with_tensors_named_after_their_places(saved: Any) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 3))
    marked = torch.nn.Parameter(torch.randn(2, 2))
    marked.is_special = True  # a parameter with state of its own
    saved_object = {
        "model": collections.OrderedDict({"a.weight": weight, "b": [marked, (weight, None)]}),
        "args": argparse.Namespace(width=8, names=["x"], dtype=torch.bfloat16),
        "path": Path("runs/one"),
        "size": torch.Size([2, 3]),
        "numbers": (1, -(2**70), 2.5, True, None, 1j, b"bytes", bytearray(b"more"), "text"),
        "kept": {1: {2, 3}, (4, 5): frozenset({6}), "slice": slice(1, 2)},
        "default": collections.defaultdict(list, {"a": [1]}),
        "device": torch.device("cuda:1"),
        "scalar": np.float64(0.5),
        "count": np.int64(7),
        "state": np.random.default_rng(0).integers(5, size=3),
    }
    found = open_saved(saved(saved_object)).content
    assert type(found["model"]) is dict
    assert same(found["model"]["a.weight"], weight) and same(found["model"]["b"][0], marked)
    assert found["model"]["a.weight"].name == "model.a.weight"
    assert found["model"]["b"][1][0].name == "model.b.1.0" and found["model"]["b"][1][1] is None
    assert vars(found["args"]) == {"width": 8, "names": ["x"], "dtype": "bfloat16"}
    assert str(found["path"]) == "runs/one" and found["size"] == (2, 3)
    for key in ("numbers", "scalar", "count", "default"):
        assert found[key] == saved_object[key]
    # A text stands for a key that is a tuple: many tuples may have one hash.
    assert found["kept"] == {1: {2, 3}, "(4, 5)": frozenset({6}), "slice": slice(1, 2)}
    assert type(found["scalar"]) is float and found["device"] == "cuda:1"
    assert isinstance(found["state"], Opaque)


def test_a_state_dict_beside_its_optimizer_is_read(
    saved: Any,
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "model": model.state_dict(), "iter_num": 5}
    path = saved(state)
    found, opened = open_saved(path).content, sorted_tables(open_saved(path))
    table = opened.tensors
    assert list(table) == list(model.state_dict()) and not opened.skips and not opened.notes
    assert {one.kind for one in opened.aside} == {"optimizer"}
    assert len(opened.aside) == 3 * len(table)
    assert all(same(table[name], tensor) for name, tensor in model.state_dict().items())
    assert all(tensor.name == name for name, tensor in table.items())
    assert found["optimizer"]["state"][0]["exp_avg"].shape == (4, 3)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles_is_read(protocol: int, tmp_path: Path) -> None:
    tensor = torch.randn(3, 4)
    found = {"w": tensor, "args": argparse.Namespace(a=b"x"), "n": np.float32(0.5), "s": {1, 2}}
    for is_zip in (True, False):
        torch.save(
            found,
            tmp_path / "f",
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=is_zip,
        )
        opened = open_saved(tmp_path / "f").content
        assert same(opened["w"], tensor) and opened["args"].a == b"x"
        assert opened["n"] == 0.5 and opened["s"] == {1, 2}


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.int64, "int64"),
        (torch.int32, "int32"),
        (torch.int16, "int16"),
        (torch.int8, "int8"),
        (torch.uint8, "uint8"),
        (torch.uint16, "uint16"),
        (torch.bool, "bool"),
        (torch.float8_e4m3fn, "float8_e4m3"),
        (torch.float8_e5m2, "float8_e5m2"),
        (torch.complex64, "complex64"),
    ],
)
def test_numbers_that_are_not_weights_are_refused_when_read(
    dtype: torch.dtype, name: str, tmp_path: Path
) -> None:
    torch.save({"w": torch.zeros(2, 2).to(dtype)}, tmp_path / "f")
    found = open_saved(tmp_path / "f").content["w"]
    assert (found.dtype, found.shape) == (name, (2, 2))
    with pytest.raises(RankscopeError, match=f"'w': is stored as {name}"):
        found.read()


@pytest.mark.filterwarnings("ignore:.*quantiz.*", "ignore:.*torch.ao.*", "ignore:.*deprecated.*")
def test_quantised_and_sparse_tensors_can_be_opened(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 0, torch.qint8)
    sparse = torch.eye(3).to_sparse()
    meta = torch.zeros(2, device="meta")
    torch.save({"q": quantised, "s": sparse, "m": meta}, tmp_path / "f")
    found = open_saved(tmp_path / "f").content
    assert found["q"].dtype == "int8" and found["q"].shape == (2, 3)
    assert isinstance(found["s"], Opaque) and isinstance(found["m"], Opaque)


class Bomb:
    """Unpickled as usual, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class Config:
    """A class that only its module can make."""

    width = 8


def test_code_in_a_pickle_is_named_and_never_run(saved: Any, tmp_path: Path) -> None:
    path = saved({"w": torch.zeros(2), "a": Bomb(tmp_path / "ran"), "b": Config()})
    opened = open_saved(path)
    assert opened.closed == ("posix.mkdir", f"{__name__}.Config")
    assert same(opened.content["w"], torch.zeros(2))
    assert isinstance(opened.content["a"], Opaque) and isinstance(opened.content["b"], Opaque)
    path = saved({"a": Bomb(tmp_path / "ran"), "b": Config()})
    with pytest.raises(RankscopeError, match="set `trust_pickle`") as caught:
        sorted_tables(open_saved(path))
    assert caught.value.reason == "unsafe-pickle"
    assert "posix.mkdir" in str(caught.value) and "Config" in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_trusted_code_runs_once(tmp_path: Path) -> None:
    for name, is_zip in FORMATS.items():
        saved = {"w": torch.ones(2), "a": Bomb(tmp_path / f"ran {name}")}
        torch.save(saved, tmp_path / "f", _use_new_zipfile_serialization=is_zip)
        assert same(open_saved(tmp_path / "f", trust=True).content["w"], torch.ones(2))
        assert (tmp_path / f"ran {name}").is_dir()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'mkdir ran'\ntR.",
        b"(S'mkdir ran'\nios\nsystem\n.",
        b"(cos\nsystem\nS'mkdir ran'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\tmkdir ran\x85R.",
        b'c__builtin__\neval\n(S\'__import__("os").mkdir("ran")\'\ntR.',
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.",
        b"ctorch\nos.system\n(S'mkdir ran'\ntR.",
        b"\x82\x01.",
    ],
)
def test_code_does_not_run_however_it_is_named(
    program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RankscopeError):
        sorted_tables(open_saved(with_program(tmp_path / "f.pt", program)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.pt"]


def test_trust_makes_objects_but_leaves_tensors_on_disk(saved: Any, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4))
    path = saved({"model": model, "a": Bomb(tmp_path / "ran"), "o": collections.OrderedDict(x=1)})
    opened = open_saved(path, trust=True)
    assert (tmp_path / "ran").is_dir() and opened.content["o"] == {"x": 1}
    assert same(sorted_tables(opened).tensors["0.weight"], model[0].weight)


def test_a_saved_module_is_a_table_whatever_its_parts_are_called(tmp_path: Path) -> None:
    module = torch.nn.ModuleDict({"model": torch.nn.Linear(3, 4), "lm_head": torch.nn.Linear(4, 2)})
    torch.save(module, tmp_path / "f.pt")
    contents = open_run(tmp_path / "f.pt", trust_pickle=True).checkpoints[0].contents
    assert set(contents.parameters) == {"model.weight", "lm_head.weight"}
    torch.save([torch.ones(2, 2)], tmp_path / "list.pt")
    opened = sorted_tables(open_saved(tmp_path / "list.pt"))
    assert not opened.tensors and [skip.tensor for skip in opened.skips] == ["0"]


def with_program(path: Path, program: bytes, entries: dict[str, bytes] | None = None) -> Path:
    """Write a torch file with any pickle and any further entries."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        for name, data in (entries or {}).items():
            archive.writestr(f"a/{name}", data)
    return path


def tensor_program(shape: str, strides: str, *, start: int = 0, count: int = 4) -> bytes:
    """Pickle of one tensor on a storage of ``count`` numbers with the key 0."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n"
        + f"I{count}\ntQI{start}\n{shape}{strides}I00\nccollections\nOrderedDict\n(tRtR.".encode()
    )


NESTED = b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b"."
HOSTILE = {
    "empty": b"",
    "no stop": b"]",
    "stack is empty": b".",
    "pops too much": b"000.",
    "place in the memo beyond memory": b"]r\xff\xff\xff\x7f00.",
    "place in the memo that is empty": b"h\x07.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 2**62) + b".",
    "text that is not there": b"\x8d" + struct.pack("<Q", 2**40) + b".",
    "number that is not there": b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
    "lists nested deeply": b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "keys nested deeply": b"}(" + NESTED[2:-1] + b"I1\nu.",
    "keys that double": b"}(\x8c\x01x\x85" + b"2\x86" * 60 + b"I1\nu.",
    "a set whose items double": b"\x8f(\x8c\x01x\x85" + b"2\x86" * 60 + b"\x90.",
    "sets in sets that double": b"\x80\x04(K\x00\x91" + b"\x940(h\x00K\x01\x86h\x00K\x02\x86\x91.",
    "a key of many parts": b"}(" + b"N" * 2000 + b"tNs.",
    "a long key of bytes": b"}B" + struct.pack("<I", 2000) + bytes(2000) + b"Ns.",
    "marks without end": b"(" * 10**6,
    "marks that are not there": b"t.",
    "an axis too many": tensor_program("(" + "I1\n" * 65 + "t", "(" + "I1\n" * 65 + "t"),
    "a set of a range": b"cbuiltins\nset\n(cbuiltins\nrange\n(L1000000000000L\ntRtR.",
    "zeros by number": b"cbuiltins\nbytearray\n(L1000000000000L\ntR.",
    "a list copied often": b"]("
    + b"N" * 10**5
    + b"eq\0("
    + 1000 * b"cbuiltins\ntuple\nh\0\x85R"
    + b"t.",
    "a path of paths": b"cpathlib\nPath\n(cpathlib\nPath\n(tRtR.",
    "a key that is too large": b"}\x8b" + struct.pack("<i", 5000) + b"\1" * 5000 + b"Ns.",
    "a name that is too long": b"}" + (b"V" + b"x" * 2000 + b"\n}") + b"ss.",
    "calls a text": b"S'os'\n(tR.",
    "calls a dtype": b"ctorch\nfloat32\n(tR.",
    "calls with no arguments": b"ccollections\nOrderedDict\nNR.",
    "a tensor of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n(tR.",
    "a storage that is none": b"S'x'\nQ.",
    "a storage with a name of a path": tensor_program("(I4\nt", "(I1\nt").replace(
        b"'0'", b"'../x'"
    ),
    "more than its storage": tensor_program("(I5\nt", "(I1\nt"),
    "more than its storage by strides": tensor_program("(I2\nI2\nt", "(I9\nI1\nt"),
    "behind its storage": tensor_program("(I4\nt", "(I1\nt", start=1),
    "before its storage": tensor_program("(I4\nt", "(I1\nt", start=-1),
    "a negative size": tensor_program("(I-4\nt", "(I1\nt"),
    "a size and no stride": tensor_program("(I4\nt", "(t"),
    "a storage beyond its data": tensor_program("(I4\nt", "(I1\nt", count=5),
    "a storage of negative size": tensor_program("(I0\nt", "(I1\nt", count=-1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_gives_one_error(name: str, tmp_path: Path) -> None:
    path = with_program(tmp_path / "f.pt", HOSTILE[name], {"data/0": bytes(16)})
    with pytest.raises(RankscopeError) as caught:
        open_saved(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_harmless_variant_of_a_hostile_pickle_is_read(tmp_path: Path) -> None:
    data = struct.pack("<4f", 1, 2, 3, 4)
    path = with_program(
        tmp_path / "f.pt", tensor_program("(I2\nI2\nt", "(I2\nI1\nt"), {"data/0": data}
    )
    assert open_saved(path).content.read().tolist() == [[1, 2], [3, 4]]


def test_sets_in_sets_are_texts(tmp_path: Path) -> None:
    path = with_program(tmp_path / "f.pt", b"\x80\x04(((K\x00\x91\x91\x91.")
    (inner,) = open_saved(path).content
    assert inner == repr(frozenset({repr(frozenset({0}))}))


def test_a_view_beyond_memory_costs_only_itself(tmp_path: Path) -> None:
    program = tensor_program("(L1000000000000L\nI2\nt", "(I0\nI0\nt")
    path = with_program(tmp_path / "f.pt", program, {"data/0": bytes(16)})
    found = open_saved(path).content
    assert isinstance(found, ClosedTensor) and found.reason == "expands"
    assert found.shape == (10**12, 2)


def test_tables_within_themselves_end(tmp_path: Path) -> None:
    doubling: Any = {"w": torch.ones(2, 2)}
    for _ in range(50):
        doubling = {"a": doubling, "b": doubling}
    doubling["self"] = doubling
    torch.save(doubling, tmp_path / "f.pt")
    assert len(sorted_tables(open_saved(tmp_path / "f.pt")).tensors) == 1


def test_compressed_doubled_and_big_endian_entries_are_refused(tmp_path: Path) -> None:
    program = pickle.dumps({}, 2)
    path = with_program(tmp_path / "big.pt", program, {"byteorder": b"big"})
    with pytest.raises(RankscopeError, match="big-endian"):
        open_saved(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        path = with_program(tmp_path / "twice.pt", program, {"data.pkl": b""})
    with pytest.raises(RankscopeError, match=r"data\.pkl twice"):
        open_saved(path)
    with zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1000))
    with pytest.raises(RankscopeError, match="is compressed"):
        open_saved(tmp_path / "deflated.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\3\4" + bytes(100), "cut short or damaged"),
        (b"\x93NUMPY" + bytes(100), "not a torch file"),
        (pickle.dumps({"w": 1}), "not a torch file"),
    ],
)
def test_files_of_other_kinds_are_refused_with_their_kind(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "f.pt").write_bytes(content)
    with pytest.raises(RankscopeError, match=message):
        open_saved(tmp_path / "f.pt")


def small_file(*, is_zip: bool) -> bytes:
    written = io.BytesIO()
    saved = {"model": {"a": torch.ones(2, 3), "b": torch.ones(4).bfloat16()}, "step": 5}
    torch.save(saved, written, _use_new_zipfile_serialization=is_zip)
    return written.getvalue()


SMALL = {name: small_file(is_zip=is_zip) for name, is_zip in FORMATS.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_anywhere_is_an_error(name: str, tmp_path: Path) -> None:
    content, path = SMALL[name], tmp_path / "f.pt"
    for end in range(0, len(content), 1 + len(content) // 200):
        path.write_bytes(content[:end])
        with pytest.raises(RankscopeError) as caught:
            open_saved(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_with_changed_bytes_is_read_or_refused(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "f.pt"
    path.write_bytes(content)
    try:
        for tensor in sorted_tables(open_saved(path)).tensors.values():
            tensor.read()
    except RankscopeError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", FORMATS)
def test_opening_reads_little_of_a_large_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {f"layers.{i}.weight": torch.zeros(512, 512) for i in range(50)}
    torch.save(tensors, tmp_path / "f.pt", _use_new_zipfile_serialization=FORMATS[name])
    size, read = (tmp_path / "f.pt").stat().st_size, 0
    readinto = zip_file.FilePart.readinto

    def counted(part: zip_file.FilePart, buffer: Any) -> int:
        nonlocal read
        count = readinto(part, buffer)
        read += count
        return count

    monkeypatch.setattr(zip_file.FilePart, "readinto", counted)
    assert len(open_saved(tmp_path / "f.pt").content) == 50
    assert size > 50 * 2**20 and read < 100_000


def test_a_zip_within_a_larger_file_is_read_at_its_place(tmp_path: Path) -> None:
    tensors = [torch.randn(3, 4), torch.randn(5).bfloat16()]
    content, places = b"before", []
    for tensor in tensors:
        written = io.BytesIO()
        torch.save(tensor, written)
        places.append((len(content), len(written.getvalue())))
        content += written.getvalue() + b"between"
    path = tmp_path / "__0_0.distcp"
    path.write_bytes(content)
    for tensor, place in zip(tensors, places, strict=True):
        assert same(open_saved_at(path, *place).content, tensor)
    with pytest.raises(RankscopeError, match="is cut short"):
        open_saved_at(path, places[-1][0], len(content))


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["state_dict", "optimizer"], "state_dict"),
        (["model_state_dict", "optim_state"], "model_state_dict"),
        (["module", "optimizer"], "module"),
        (["_model"], "_model"),
        (["params", "opt_state"], "params"),
        (["ema", "model"], "model"),
        (["weights"], "weights"),
        (["net"], ""),
    ],
)
def test_weights_are_found_under_the_key_of_any_trainer(
    keys: list[str], chosen: str, tmp_path: Path
) -> None:
    tensors = {"layers": {"0": {"weight": torch.randn(3, 2)}}, "norm.weight": torch.randn(3)}
    state = {0: {"exp_avg": torch.zeros(9, 9)}}
    saved = {key: state if key.startswith("opt") else tensors for key in keys}
    torch.save({**saved, "best_val_loss": torch.tensor(1.5), "epoch": 1}, tmp_path / "f.pt")
    table = sorted_tables(open_saved(tmp_path / "f.pt")).tensors
    if chosen:
        assert list(table) == ["layers.0.weight", "norm.weight"]
        assert same(table["layers.0.weight"], tensors["layers"]["0"]["weight"])
    else:
        assert "net.layers.0.weight" in table


LLAMA = {
    "model.layers.0.self_attn.q_proj.weight": torch.randn(4, 4),
    "lm_head.weight": torch.eye(4),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_series_of_torch_files_is_a_run(name: str, tmp_path: Path) -> None:
    for step in (10, 200):
        path = tmp_path / f"weights_step_{step}.pth"
        torch.save(LLAMA, path, _use_new_zipfile_serialization=FORMATS[name])
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    run = open_run(tmp_path)
    assert run.steps == (10, 200) and {one.layout for one in run} == {"torch"}
    parameters = run[200].contents.parameters
    assert set(parameters) == set(LLAMA)
    for name, tensor in LLAMA.items():
        assert same(parameters[name].tensor, tensor)


def test_a_tensor_without_plain_elements_is_reported(tmp_path: Path) -> None:
    tensors = {**LLAMA, "sparse": torch.eye(3).to_sparse(), "meta": torch.ones(2, device="meta")}
    torch.save({"model": tensors}, tmp_path / "step_5.pt")
    (checkpoint,) = open_run(tmp_path / "step_5.pt")
    assert set(checkpoint.contents.parameters) == set(LLAMA)
    assert {skip.tensor for skip in checkpoint.contents.skips} == {"sparse", "meta"}


@pytest.mark.parametrize("key", ["iter_num", "step", "global_step", "step_count", "update_step"])
def test_the_step_is_read_from_the_object(key: str, tmp_path: Path) -> None:
    torch.save({"net": LLAMA, key: 700, "config": {"n_head": 2, "n_embd": 4}}, tmp_path / "w.pt")
    (checkpoint,) = open_run(tmp_path / "w.pt")
    assert (checkpoint.step, checkpoint.layout) == (700, "torch")
    assert checkpoint.contents.heads is not None and checkpoint.contents.heads.count == 2


@pytest.mark.parametrize(
    "name",
    [
        *("optimizer.pt", "optim_000100_rank0.pt", "scheduler.pt", "scaler.pt", "rng_state_0.pth"),
        *("training_args.bin", "train.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        *("adapter_model.bin", "train_gradients.pt", "pytorch_model-00001-of-00002.bin"),
    ],
)
def test_files_beside_weights_are_not_checkpoints(name: str, tmp_path: Path) -> None:
    torch.save(LLAMA, tmp_path / name)
    assert layout_of(tmp_path / name) is None
    (tmp_path / "train.bin").write_bytes(bytes(64))
    assert layout_of(tmp_path / "train.bin") is None
