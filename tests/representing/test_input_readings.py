"""Energies are those of the inputs that transformers' own hooks see, by an SVD of each weight."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

import rankscope as rs
from rankscope.components.component import Moment
from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.evaluation.libraries import quiet_transformers
from rankscope.evaluation.open_model import OpenOptions, open_text_model
from rankscope.representing import network_features
from rankscope.representing.feature_store import WHY_NOT
from rankscope.representing.feature_tasks import INPUTS
from rankscope.representing.input_readings import energies
from rankscope.representing.probe_windows import Probe, ProbeOptions, make_probe
from rankscope.representing.weight_inputs import Reader, readers_of
from rankscope.scoring.text_model import TextModel
from tests.evaluation.models import (
    DOCUMENTS,
    only_checkpoint,
    write_hugging_face,
    write_own_run,
)

TEXTS = [f"{i} {text}" for i in range(40) for text in DOCUMENTS[:3]]
Matrix = NDArray[np.float64]


def looked_into(
    checkpoint: rs.Checkpoint, run: rs.Run, *wanted: Any
) -> tuple[TextModel, list[Reader], Probe]:
    model = open_text_model(checkpoint, run, OpenOptions())
    assert model.network is not None
    moment = Moment(checkpoint.contents)
    readers = readers_of(model.network, moment, wanted, device="cpu", precision="float32")
    return model, readers, make_probe(model.encoder, TEXTS, ProbeOptions(), 300, 12)


def inputs_of(network: Any, modules: list[Any], probe: Probe) -> list[Matrix]:
    """What each module is given, window by window, at the positions that count."""
    given: list[list[torch.Tensor]] = [[] for _ in modules]
    handles = [
        module.register_forward_pre_hook(lambda _, x, some=some: some.append(x[0][0]))
        for module, some in zip(modules, given, strict=True)
    ]
    with torch.inference_mode():
        for window in probe.windows:
            network(torch.from_numpy(window.ids)[None])
    for handle in handles:
        handle.remove()
    return [
        np.concatenate(
            [
                x.double().numpy()[window.counted]
                for x, window in zip(some, probe.windows, strict=True)
            ]
        )
        for some in given
    ]


def share_of(weight: Matrix, x: Matrix, k: int) -> float:
    right = np.linalg.svd(weight)[2][:k]
    return float(((x @ right.T) ** 2).sum() / (x**2).sum())


def least_holding(weight: Matrix, share: float) -> int:
    squares = np.linalg.svd(weight, compute_uv=False) ** 2
    return next(k for k in range(1, 99) if squares[:k].sum() >= share * squares.sum())


def check(rows: list[dict[str, Any]], name: str, weight: Matrix, x: Matrix) -> None:
    for row in (row for row in rows if row["name"] == name and row["component"] == "weight"):
        assert row["status"] == "ok"
        assert row["k"] == least_holding(weight, row["weight_share"])
        for suffix, features in (("", x), ("_centred", x - x.mean(axis=0))):
            share = share_of(weight, features, row["k"])
            assert row[f"energy_share{suffix}"] == pytest.approx(share, abs=1e-5)
            best = np.linalg.svd(features, compute_uv=False)[: row["k"]] ** 2
            assert row[f"energy_share_best{suffix}"] == pytest.approx(
                best.sum() / (features**2).sum(), abs=1e-5
            )
            passed = ((features @ weight.T) ** 2).sum() / (features**2).sum()
            passed /= np.linalg.norm(weight, 2) ** 2
            assert row[f"energy_passed{suffix}"] == pytest.approx(passed, abs=1e-5)
            assert row[f"energy_share_low{suffix}"] < share < row[f"energy_share_high{suffix}"]


@pytest.mark.parametrize("make", ["llama", "gpt2"])
def test_energies_are_those_of_what_the_hooks_of_transformers_see(
    make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_features, "SUMS_BYTES", 1 << 17)  # two passes
    other = write_hugging_face(tmp_path / "model", make)
    model, readers, probe = looked_into(*only_checkpoint(tmp_path / "model"), "weight")
    model = replace(model, tokens_at_once=24)  # several batches in a block of documents
    rows = list(energies(model, readers, probe))
    modules = dict(other.named_modules())
    inner = "transformer.h.1" if make == "gpt2" else "model.layers.1"
    paths = {
        "llama": ("self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"),
        "gpt2": ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    }[make]
    seen = {f"{inner}.{path}.weight": modules[f"{inner}.{path}"] for path in paths}
    seen["transformer.wte.weight" if make == "gpt2" else "lm_head.weight"] = other.lm_head
    if make == "gpt2":
        seen["fused"] = modules[f"{inner}.attn.c_attn"]
    inputs = inputs_of(other, [*seen.values()], probe)
    for (name, module), x in zip(seen.items(), inputs, strict=True):
        weight = module.weight.detach().double().numpy()
        weight = weight.T if make == "gpt2" and module is not other.lm_head else weight
        if name != "fused":
            check(rows, name, weight, x)
            continue
        for role, part in zip("qkv", np.split(weight, 3), strict=True):
            check(rows, f"{inner}.attn.c_attn.weight[{role}]", part, x)
    assert {row["role"] for row in rows} == {
        *("q", "k", "v", "o", "up", "down", "unembed", *([] if make == "gpt2" else ["gate"]))
    }


def test_an_adapter_reads_in_the_row_space_of_its_product(tmp_path: Path) -> None:
    run = write_own_run(tmp_path / "run")
    checkpoint = run[run.steps[-1]]
    model, readers, probe = looked_into(checkpoint, run, "adapter", "weight")
    rows = list(energies(model, readers, probe))
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(checkpoint.path)
        other = PeftModel.from_pretrained(base, checkpoint.path / "adapter").eval()
    paths = dict(other.named_modules())
    module: Any = paths["base_model.model.model.layers.1.mlp.down_proj"]
    (x,) = inputs_of(other, [module], probe)
    stored = load_file(checkpoint.path / "adapter" / "adapter_model.safetensors")
    left, right = (
        next(one for name, one in stored.items() if f"layers.1.mlp.down_proj.{factor}" in name)
        for factor in ("lora_B", "lora_A")
    )
    product = left.astype(np.float64) @ right.astype(np.float64)
    name = "model.layers.1.mlp.down_proj.weight"
    (row,) = (row for row in rows if row["name"] == name and row["component"] == "adapter")
    assert (row["k"], row["weight_share"], row["dimensions"]) == (2, 1.0, 24)
    assert row["energy_share"] == pytest.approx(share_of(product, x, 2), abs=1e-5)
    scale = 3.0 / 2
    weight = module.base_layer.weight.detach().double().numpy() + scale * product
    check(rows, name, weight, x)


def test_a_weight_of_another_model_has_no_input_for_certain(tmp_path: Path) -> None:
    write_hugging_face(tmp_path / "model")
    checkpoint, run = only_checkpoint(tmp_path / "model")
    contents = checkpoint.contents
    swap = {"gate_proj": "up_proj", "up_proj": "gate_proj"}

    def other(name: str) -> str:
        return next((name.replace(a, b) for a, b in swap.items() if a in name), name)

    mixed = {
        name: one._replace(tensor=contents.parameters[other(name)].tensor)
        for name, one in contents.parameters.items()
    }
    model, _, probe = looked_into(checkpoint, run, "weight")
    assert model.network is not None
    moment = Moment(replace(contents, parameters=mixed))
    readers = readers_of(model.network, moment, ["weight"], device="cpu", precision="float32")
    rows = list(energies(model, readers, probe))
    assert {row["role"] for row in rows if row["status"] == "no-input"} == {"gate", "up"}
    assert {row["status"] for row in rows if row["role"] in ("q", "o", "down")} == {"ok"}


@pytest.fixture(scope="module")
def represented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A ReLoRA run, a text, and results with the energies of all its matrices."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("energies")
    write_own_run(folder / "run")
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    measure(folder / "run", text, folder / "out", steps=[0, 6])
    return folder / "run", text, folder / "out"


def measure(run: Path, text: Path, out: Path, **settings: Any) -> pd.DataFrame:
    given: dict[str, Any] = {"tokens": 400, "window": 12, "energy": "all", "compare": "none"}
    return rs.represent(run, text=text, out=out, **(given | settings))


def test_every_matrix_and_share_has_a_row_and_updates_begin_at_the_step_before(
    represented: tuple[Path, Path, Path],
) -> None:
    table = rs.open_results(represented[2]).input_energies
    before = max(step for step in rs.open_run(represented[0]).steps if step < 6)
    updates = table[table["component"] == "update"]
    assert set(updates["step"]) == {6} and before > 0
    assert set(updates["since"]) == {before}
    shares = table.groupby("component")["weight_share"].unique().map(sorted).to_dict()
    assert shares == {"weight": [0.5, 0.9], "update": [0.5, 0.9], "adapter": [1.0]}
    of_zero = table[table["status"] == "zero"]
    assert set(of_zero["step"]) == {0} and set(of_zero["component"]) == {"adapter"}
    assert table["energy_share"].isna().equals(table["status"] == "zero")
    known = table[table["status"] == "ok"]
    assert (known["energy_share_low"] <= known["energy_share"]).all()
    assert (known["energy_share"] <= known["energy_share_best"] + 1e-12).all()


def test_a_second_call_opens_no_model_and_other_calls_leave_the_energies(
    represented: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, text, out = represented
    before = rs.open_results(out).input_energies
    monkeypatch.setattr("rankscope.evaluation.model_engine.open_text_model", None)
    measure(run, text, out, steps=[0, 6])
    measure(run, text, out, steps=[0, 6], energy="none")
    pd.testing.assert_frame_equal(rs.open_results(out).input_energies, before)


def test_every_status_without_a_number_has_a_reason_in_the_output(tmp_path: Path) -> None:
    write_hugging_face(tmp_path / "run" / "checkpoint-1")
    text = tmp_path / "few.txt"
    text.write_text(" ".join(DOCUMENTS) * 40, encoding="utf-8")
    with pytest.warns(RankscopeWarning, match="skipped"):
        table = measure(tmp_path / "run", text, tmp_path / "few", tokens=60)
    messages = [skip["message"] for skip in table.attrs["skipped"]]
    assert any("the weight and 14 more weights at step 1: 60 features of 16" in m for m in messages)
    assert {*WHY_NOT} == {"too-few-tokens", "one-block", "nonfinite", "no-input", "unreadable"}
    assert INPUTS == "inputs"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"energy": "gradient"}, "`energy`"),
        ({"out": None}, "`energy` writes a table of its own"),
        ({"text": ()}, "`energy` takes models that read: give `text`"),
    ],
)
def test_wrong_settings_are_refused(
    settings: dict[str, Any], message: str, represented: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    given = {"text": represented[1], "out": tmp_path / "out"} | settings
    with pytest.raises(WrongSettingError, match=message):
        measure(represented[0], **given)
