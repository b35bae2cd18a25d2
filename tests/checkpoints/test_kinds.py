"""The content of a file shows its kind; its name only what was meant to be weights."""

import builtins
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files.file_names import OTHER_SUFFIXES
from rankscope.checkpoints.files.kinds import kind_of
from rankscope.checkpoints.files.safetensors_file import open_tensors, read_notes
from rankscope.checkpoints.files.weights_file import refusal
from rankscope.checkpoints.layouts import LAYOUTS, huggingface, layout_of
from rankscope.checkpoints.options import DEFAULT
from rankscope.errors import RankscopeError

WEIGHTS = {"h.0.fc1.weight": torch.arange(12.0).reshape(3, 4), "h.0.fc1.bias": torch.ones(3)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"
PAGE = b"\n<!DOCTYPE html><html><body>Not Found</body></html>"


def write(path: Path, kind: str) -> Path:
    """Write the same weights as a file of this kind, whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: tensor.numpy() for name, tensor in WEIGHTS.items()})
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "torch")
    return path


KINDS = {
    "safetensors": "safetensors",
    "npz": "numpy",
    "torch": "torch",
    "torch-before-1.6": "torch",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        *("step_7.pth.tar", "step_7", "step_7.weights", "step_7.pt", "step_7.safetensors"),
        *("step_7.CKPT", "step_7.npz", "step_7.bin", "step_7.state.dict", "best v2.model_7"),
    ],
)
def test_weights_are_read_under_any_name(kind: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, kind)
    assert kind_of(path) == kind
    assert layout_of(path) == KINDS[kind] and refusal(path) == ""
    contents = LAYOUTS[KINDS[kind]].read(path, DEFAULT)
    (tensor,) = (parameter.tensor for parameter in contents.parameters.values())
    assert tensor is not None and (tensor.read() == WEIGHTS["h.0.fc1.weight"].numpy()).all()


@pytest.mark.parametrize("kind", ["torch", "torch-before-1.6"])
def test_a_series_of_pth_tar_is_a_run(kind: str, tmp_path: Path) -> None:
    for step in (10, 20):
        write(tmp_path / f"checkpoint_{step:04d}.pth.tar", kind)
    run = open_run(tmp_path)
    assert run.steps == (10, 20) and {one.step_source for one in run} == {"file"}


def archive(suffix: str) -> bytes:
    """A tar archive, as NeMo's are."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as file:
        info = tarfile.TarInfo(f"model{suffix}")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    return written.getvalue()


def zipped(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return written.getvalue()


REFUSED = {
    "model-q4.gguf": (b"GGUF\3\0\0\0", "GGUF"),
    "renamed.bin": (b"GGUF\3\0\0\0", "GGUF"),
    "net.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
    "exported": (b"\x08\x08\x12\x07pytorch\x1a\x05", "ONNX"),
    "model.weights.h5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "weights-no-suffix": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "net.keras": (zipped("config.json", "model.weights.h5"), "Keras"),
    "flax_model.msgpack": (b"\x81\xa6params", "msgpack"),
    "one.nemo": (archive(".ckpt"), "nemo"),
    "two.nemo": (b"x", "nemo"),
    "model.ckpt-100.index": (b"x", "TensorFlow"),
    "model.ckpt-100.data-00000-of-00001": (b"x" * 90, "TensorFlow"),
    "saved_model.pb": (b"\x08\x01", "TensorFlow"),
    "net.tflite": (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
    "snapshot-000100.pkl": (b"\x80\x03}.", "pickle"),
    "ggml-vocab.bin": (b"lmgg\1\0\0\0", "GGML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unread_kinds_are_refused_by_name(name: str, tmp_path: Path) -> None:
    content, word = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    assert layout_of(tmp_path / name) is None
    assert word in refusal(tmp_path / name) and len(refusal(tmp_path / name)) < 300


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (POINTER, "lfs-pointer", "git lfs pull"),
        (PAGE, "web-page", "web page"),
        (b"", "empty", "is empty"),
        (None, "cut-short", "cut short"),
        (b"\1\2\3\4 nothing of the kind", "cut-short", "cut short or not a"),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "pth.tar", "ckpt", "safetensors", "npz", "bin"])
def test_weights_by_name_only_keep_their_step_with_the_reason(
    suffix: str, content: bytes | None, reason: str, words: str, tmp_path: Path
) -> None:
    kind = {"safetensors": "safetensors", "npz": "npz"}.get(suffix, "torch")
    for step in (100, 200, 300):
        path = write(tmp_path / f"step_{step}.{suffix}", kind)
        if step == 200:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    run = open_run(tmp_path)
    assert run.steps == (100, 200, 300)
    with pytest.raises(RankscopeError, match=words) as refused:
        run[200].read()
    assert refused.value.reason == reason and "\n" not in str(refused.value)
    assert refused.value.path == str(tmp_path / f"step_200.{suffix}")
    assert run[100].read().parameters and run[300].read().parameters


@pytest.mark.parametrize(
    ("content", "word"),
    [(archive(".pth"), "tar archive"), (b"GGUF\3\0\0\0", "GGUF"), (b"\x80\x04}.", "pickle")],
)
def test_other_kinds_under_a_name_of_weights_keep_their_step(
    content: bytes, word: str, tmp_path: Path
) -> None:
    for step in (100, 200):
        write(tmp_path / f"step_{step}.pth.tar", "torch")
    (tmp_path / "step_200.pth.tar").write_bytes(content)
    run = open_run(tmp_path)
    assert run.steps == (100, 200)
    with pytest.raises(RankscopeError, match=word) as refused:
        run[200].read()
    assert refused.value.reason == "other-kind"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_anywhere_keeps_its_place(kind: str, tmp_path: Path) -> None:
    suffix = {"safetensors": "safetensors", "npz": "npz"}.get(kind, "pt")
    path = write(tmp_path / f"step_7.{suffix}", kind)
    whole = path.read_bytes()
    for end in range(0, len(whole), 1 + len(whole) // 60):
        path.write_bytes(whole[:end])
        layout = layout_of(path)
        assert layout == KINDS[kind], end
        with pytest.raises(RankscopeError) as refused:
            LAYOUTS[str(layout)].read(path, DEFAULT)
        assert refused.value.reason in ("cut-short", "empty", "damaged")


LOGS = {
    "evaluations": {"timesteps": (10,), "results": (10, 5), "ep_lengths": (10, 5)},
    "history": {"train/loss": (50,), "train/grads": (50, 8)},
    "digits": {"x_train": (30, 12), "y_train": (30,), "x_test": (9, 12)},
    "activations_step_100": {"layer_3": (40, 16), "resid": (40, 16)},
}
MODELS = {
    "digits": {"W1": (6, 4), "b1": (6,)},
    "vit": {"Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel": (4, 6)},
    "x": {"layers.0.a": (4, 6)},
    "model_final": {"arr_0": (4, 6)},
    "weights": {"first": (4, 6), "second": (4, 6)},
}


@pytest.mark.parametrize("name", LOGS)
def test_arrays_of_logs_and_data_are_not_a_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.npz"
    np.savez(path, **{key: np.ones(shape) for key, shape in LOGS[name].items()})
    assert layout_of(path) is None
    assert "log or for data" in refusal(path) and next(iter(LOGS[name])) in refusal(path)


@pytest.mark.parametrize("name", MODELS)
def test_arrays_of_a_model_are_recognised_by_their_names_or_the_files(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.npz"
    np.savez(path, **{key: np.ones(shape) for key, shape in MODELS[name].items()})
    assert layout_of(path) == "numpy" and refusal(path) == ""


def test_states_of_trainings_are_not_checkpoints_under_any_name(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved: dict[str, Any] = {
        "TD3_Hopper_0_actor_solver": optimizer.state_dict(),
        "helper_100.pt": optimizer.state_dict(),
        "recipe_state.pt": {"optimizer": {}, "epochs_run": 2},
        "args.pth": {"lr": 1e-3},
    }
    for name, found in saved.items():
        torch.save(found, tmp_path / name)
        assert layout_of(tmp_path / name) is None, name
        assert "hold" in refusal(tmp_path / name), name
    write(tmp_path / "step_5.pt", "torch")
    assert open_run(tmp_path).steps == (5,)


def test_a_step_without_tensors_keeps_its_place(tmp_path: Path) -> None:
    write(tmp_path / "step_100.pt", "torch")
    torch.save({"epoch": 3}, tmp_path / "step_200.pt")
    run = open_run(tmp_path)
    assert run.steps == (100, 200)
    with pytest.raises(RankscopeError, match="not hold a table of tensors"):
        run[200].read()


@pytest.mark.parametrize("suffix", sorted(OTHER_SUFFIXES))
def test_what_cannot_be_weights_is_not_opened(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"step_100{suffix}"
    path.write_bytes(b"PK\3\4 weights?")
    opened: list[object] = []
    inner, outer = os.open, builtins.open

    def noted(where: Any, *args: Any, **more: Any) -> Any:
        opened.append(where)
        return inner(where, *args, **more)

    monkeypatch.setattr(os, "open", noted)
    monkeypatch.setattr(
        builtins, "open", lambda w, *a, **k: (opened.append(w), outer(w, *a, **k))[1]
    )
    assert layout_of(path) is None and refusal(path) == ""
    assert not [where for where in opened if str(where) == str(path)]


def header_with(entries: dict[str, Any], data: bytes) -> bytes:
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def test_a_header_whose_notes_are_null_is_read(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    path = tmp_path / "step_5.safetensors"
    path.write_bytes(header_with({"__metadata__": None, "fc.weight": entry}, bytes(24)))
    assert list(open_tensors(path)) == ["fc.weight"] and read_notes(path) == {}
    assert open_run(path).steps == (5,)


@pytest.mark.parametrize(
    ("dtype", "count"), [("F8_E8M0", 32), ("F4", 16), ("F6_E2M3", 24), ("I4", 16), ("F33", 7)]
)
@pytest.mark.parametrize("shape", [[8, 4], [32]])
def test_an_unknown_format_costs_only_its_tensor(
    dtype: str, count: int, shape: list[int], tmp_path: Path
) -> None:
    entries = {
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "odd.scale": {"dtype": dtype, "shape": shape, "data_offsets": [24, 24 + count]},
        "b.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [24 + count, 48 + count]},
    }
    path = tmp_path / "step_5.safetensors"
    path.write_bytes(header_with(entries, bytes(48 + count)))
    contents = open_run(path)[5].contents
    assert set(contents.parameters) == {"a.weight", "b.weight"}
    (skip,) = contents.skips
    assert skip.tensor == "odd.scale" and dtype in skip.message
    assert [(one.tensor, one.kind) for one in contents.account if one.kind != "matrix"] == [
        ("odd.scale", "not understood")
    ]
    entries["odd.scale"]["data_offsets"] = [24, 23 + count]
    path.write_bytes(header_with(entries, bytes(48 + count)))
    with pytest.raises(RankscopeError, match="leaves a hole"):
        open_tensors(path)
    entries["odd.scale"]["data_offsets"] = [23, 24 + count]
    path.write_bytes(header_with(entries, bytes(48 + count)))
    with pytest.raises(RankscopeError, match="overlaps"):
        open_tensors(path)


def test_weights_that_zero_3_did_not_gather_are_reported_as_empty(tmp_path: Path) -> None:
    names = [f"model.layers.{i}.self_attn.{n}_proj.weight" for i in range(2) for n in "qkvo"]
    empty = {name: torch.zeros(0) for name in names} | {"model.norm.weight": torch.zeros(0)}
    for form in ("pytorch_model.bin", "model.safetensors"):
        folder = tmp_path / form
        folder.mkdir()
        torch.save(empty, folder / form) if form.endswith("bin") else save_file(
            empty, folder / form
        )
        with pytest.raises(RankscopeError, match="weights are empty, as ZeRO-3") as refused:
            huggingface.read(folder, DEFAULT)
        assert refused.value.reason == "empty-weights"
    torch.save({"state_dict": empty}, tmp_path / "step_5.pt")
    with pytest.raises(RankscopeError, match="weights are empty, as ZeRO-3"):
        open_run(tmp_path / "step_5.pt")[5].read()


def test_a_single_empty_weight_costs_only_itself(tmp_path: Path) -> None:
    torch.save(WEIGHTS | {"h.1.fc1.weight": torch.zeros(0)}, tmp_path / "step_5.pt")
    contents = open_run(tmp_path / "step_5.pt")[5].contents
    assert set(contents.parameters) == {"h.0.fc1.weight"}
    assert [(skip.tensor, skip.reason) for skip in contents.skips] == [("h.1.fc1.weight", "empty")]


FLAT = {
    "by name": {"_flat_param": (5000,), "lm_head.weight": (40, 32)},
    "by the name of fairscale": {"layers.0.flat_param_0": (700,), "norm.weight": (8,)},
    "by its length": {"module.0.all": (9000,), "module.1.all": (9000,), "head.weight": (40, 32)},
    "alone": {"everything": (200_000,)},
}


@pytest.mark.parametrize("name", FLAT)
def test_flattened_parameters_are_refused_as_such(name: str, tmp_path: Path) -> None:
    tensors = {key: torch.zeros(shape) for key, shape in FLAT[name].items()}
    torch.save(tensors, tmp_path / "step_5.pt")
    save_file(tensors, tmp_path / "step_5.safetensors")
    for path in tmp_path.iterdir():
        with pytest.raises(RankscopeError, match="holds flattened parameters") as refused:
            open_run(path)[5].read()
        assert refused.value.reason == "flattened"


def test_long_biases_are_not_flattened_parameters(tmp_path: Path) -> None:
    healthy = {
        "a": {"embed.weight": torch.ones(4, 500), "head.bias": torch.ones(500)},
        "b": {"norm.weight": torch.ones(4096), "head.bias": torch.ones(50_000)},
        "c": {"fc.weight": torch.ones(300, 300), "table": torch.ones(5000)},
    }
    for name, tensors in healthy.items():
        torch.save(tensors, tmp_path / f"{name}_step_5.pt")
        assert not open_run(tmp_path / f"{name}_step_5.pt")[5].read().skips


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "a\n\x1b[2J"])
def test_an_odd_name_in_a_manifest_is_one_line(name: str, tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-5" / "model.safetensors", "safetensors")
    listed = {"format": "rankscope-checkpoint-1", "files": {name: {"bytes": 5, "blake2b": ""}}}
    (tmp_path / "checkpoint-5" / "MANIFEST.json").write_text(json.dumps(listed))
    with pytest.raises(RankscopeError, match="is missing, but 5 bytes were written") as caught:
        open_run(tmp_path)[5].read()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_manifest_that_is_a_pipe_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-5" / "model.safetensors", "safetensors")
    os.mkfifo(tmp_path / "checkpoint-5" / "MANIFEST.json")
    assert open_run(tmp_path)[5].contents.parameters


def test_shards_without_their_index_are_read_if_all_are_there(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, name in enumerate(names):
        save_file({f"model.layers.{i}.mlp.up_proj.weight": torch.ones(3, 4)}, tmp_path / name)
    assert layout_of(tmp_path) == "huggingface"
    assert len(huggingface.read(tmp_path, DEFAULT).parameters) == 2
    (tmp_path / names[1]).unlink()
    assert layout_of(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert layout_of(tmp_path) == "huggingface"
    with pytest.raises(RankscopeError, match="1 of 2 shards and no index: number 2 is missing"):
        huggingface.read(tmp_path, DEFAULT)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_weights_that_are_not_a_file_keep_the_step_of_their_folder(
    kind: str, tmp_path: Path
) -> None:
    for step in (100, 200):
        write(tmp_path / f"checkpoint-{step}" / "model.safetensors", "safetensors")
    path = tmp_path / "checkpoint-200" / "model.safetensors"
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    run = open_run(tmp_path)
    assert run.steps == (100, 200)
    with pytest.raises(RankscopeError, match="is neither a file"):
        run[200].read()
