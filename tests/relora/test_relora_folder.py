from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

import rankscope as rs
from rankscope import durable, relora
from rankscope.durable import damage
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from rankscope.relora.adapted_model import MergedFactors, adapted, factors_of
from tests.relora.models import WIDTH, Perceptron, logits, made, train

Matrix = np.ndarray
SPLIT = {"attn.c_attn": ("q", "k", "v")}


class Recorded:
    """A training of two restarts, with the live tensors at each of its steps."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.live = folder, {}  # type: ignore[var-annotated]
        self.merges: dict[int, dict[str, MergedFactors]] = {}
        self.model = relora.wrap(made(name), rank=2, alpha=6, seed=1)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        for step in range(0, 7):
            if step % 2 == 0:
                relora.save(self.model, folder, step)
                self.live[step] = self.tensors()
            if step in (2, 4):
                self.merges[step] = relora.restart(self.model, optimizer, cycle=step // 2)
            train(self.model, optimizer, steps=1)

    def tensors(self) -> dict[str, tuple[Matrix, Matrix]]:
        """Base (out, in) and delta of every layer, in float64."""
        found = {}
        for name, layer in adapted(self.model).items():
            a, b, scale = (
                one.detach().double().numpy() if isinstance(one, torch.Tensor) else one
                for one in factors_of(layer)
            )
            w = layer.base_layer.weight.detach().double().numpy()
            found[name] = (w.T if layer.fan_in_fan_out else w).copy(), scale * b @ a
        return found

    def expected(self, component: str, step: int, module: str) -> Matrix:
        base, delta = self.live[step][module]
        match component:
            case "base":
                return base
            case "adapter":
                return delta
            case "weight":
                return base + delta
            case "update":
                return base + delta - sum(self.live[step - 2][module])
            case "merge":
                return self.merges[step][module].delta().numpy()
        return sum(m[module].delta().numpy() for s, m in self.merges.items() if s <= step)


def effective_rank(matrix: Matrix, rank: int) -> float:
    """exp(−Σ p ln p) of the largest singular values, from the definition."""
    s = np.linalg.svd(matrix, compute_uv=False)[:rank]
    p = s / s.sum()
    return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.slow
def test_every_number_of_the_analysis_is_that_of_the_live_tensors(
    name: str, tmp_path: Path
) -> None:
    run = Recorded(name, tmp_path / "run")
    kinds = ["weight", "base", "adapter", "merge", "merged_total", "update"]
    table = rs.analyze(tmp_path / "run", out=tmp_path / "results", components=kinds, jobs=1)
    table = table[table["status"] == "ok"]
    assert set(table["component"]) == set(kinds)
    seen = set()
    for row in table.itertuples():
        whole, _, part = str(row.name).removesuffix("]").partition("[")
        module = whole.removesuffix(".weight")
        if module not in run.live[0]:  # BERT's layers beside the blocks have no adapter
            assert row.component in ("weight", "update") and row.role == "other"
            continue
        matrix = run.expected(str(row.component), int(row.step), module)
        parts = next((p for end, p in SPLIT.items() if module.endswith(end)), ())
        if parts:
            assert row.role == part
            matrix = np.split(matrix, 3)[parts.index(part)]
        assert row.role != "other" and row.layer == int(
            module.split("layer" if name == "bert" else "h" if name == "gpt2" else "layers")[
                1
            ].split(".")[1]
        )
        s = np.linalg.svd(matrix, compute_uv=False)
        assert (row.rows, row.cols) == matrix.shape
        assert row.spectral_norm == pytest.approx(s[0], rel=2e-5)
        assert row.frobenius_norm == pytest.approx(np.linalg.norm(matrix), rel=2e-5)
        most = {"adapter": 2, "merge": 2, "merged_total": row.step, "update": 4}
        rank = min(most.get(str(row.component), WIDTH), *matrix.shape)
        assert row.effective_rank == pytest.approx(effective_rank(matrix, rank), rel=1e-4)
        seen.add((row.component, row.step, row.role))
    roles = {role for _, _, role in seen}
    for component, steps in {"merge": (2, 4), "merged_total": (2, 4), "adapter": (2, 4, 6)}.items():
        assert {(component, s, role) for s in steps for role in roles} <= seen


@pytest.mark.filterwarnings("ignore")  # of two libraries that load each other
def test_transformers_and_peft_open_what_was_saved(tmp_path: Path) -> None:
    run = Recorded("gpt2", tmp_path / "run")
    folder = relora.save(run.model, tmp_path / "run", 9)
    base = AutoModelForCausalLM.from_pretrained(folder)
    loaded = PeftModel.from_pretrained(base, folder / "adapter")
    assert torch.equal(logits(loaded), logits(run.model.eval()))
    assert damage(folder) is None
    assert json.loads((folder / "state.json").read_text())["restarts"] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_goes_on_as_if_never_interrupted(dtype: torch.dtype, tmp_path: Path) -> None:
    def start() -> nn.Module:
        return made("llama").to(dtype)

    model = relora.wrap(start(), rank=2, alpha=6, seed=5, frozen="all")
    train(model, torch.optim.SGD(model.parameters(), lr=0.5))
    relora.restart(model, cycle=1, step=2)
    train(model, torch.optim.SGD(model.parameters(), lr=0.5))
    relora.save(model, tmp_path, 4)
    again = relora.load(made("llama", seed=8).to(dtype), tmp_path)
    for one in (model, again):
        assert not relora.restart(one, cycle=2)["model.layers.0.self_attn.q_proj"].rounding > 1
        train(one, torch.optim.SGD(one.parameters(), lr=0.5))
    named = dict(again.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(named[name], parameter) and named[name].dtype == dtype
        assert named[name].requires_grad == parameter.requires_grad
    with pytest.raises(WrongSettingError, match="cycle 2 has begun"):
        relora.restart(again, cycle=1)
    relora.save(again, tmp_path, 6)
    assert json.loads((tmp_path / "checkpoints/step-00000006/state.json").read_text()) == {
        "step": 6,
        "cycle": 2,
        "restarts": 2,
        "seed": 5,
        "frozen": "all",
    }


def test_buffers_are_saved_and_loaded(tmp_path: Path) -> None:
    model = Perceptron()
    model.seen += 4
    relora.save(relora.wrap(model, rank=2), tmp_path, 0)
    other = Perceptron()
    relora.load(other, tmp_path, step=0)
    assert int(other.seen) == 7


def test_a_run_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RankscopeError, match=r"no checkpoint of relora\.save"):
        relora.load(Perceptron(), tmp_path)
    relora.save(relora.wrap(Perceptron(), rank=2), tmp_path, 5)
    with pytest.raises(RankscopeError, match="holds steps 5 to 5 and not 4"):
        relora.load(Perceptron(), tmp_path, step=4)
    with pytest.raises(RankscopeError, match="absent"):
        relora.load(made("llama"), tmp_path)
    path = tmp_path / "checkpoints/step-00000005/adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RankscopeError, match=r"not a complete checkpoint"):
        relora.load(Perceptron(), tmp_path)


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for layer in adapted(model).values():  # type: ignore[arg-type]
            factors_of(layer)[1].add_(1.0)


def merge_steps(folder: Path) -> list[int]:
    return [int(p.stem.removeprefix("step-")) for p in sorted((folder / "merges").glob("step*"))]


def test_a_merge_just_after_a_save_has_its_step(tmp_path: Path) -> None:
    model = relora.wrap(Perceptron(), rank=2)
    for step in (10, 20, 30):
        change(model)
        relora.save(model, tmp_path, step)
        relora.restart(model)
    assert merge_steps(tmp_path) == [10, 20]  # the third is written with the next checkpoint
    relora.save(model, tmp_path, 31)
    assert merge_steps(tmp_path) == [10, 20, 30]


def test_a_merge_whose_step_is_not_known_is_recorded_before_the_checkpoint_and_said(
    tmp_path: Path,
) -> None:
    model = relora.wrap(Perceptron(), rank=2)
    relora.save(model, tmp_path, 10)
    change(model)
    relora.restart(model)
    relora.restart(model)
    with pytest.warns(RankscopeWarning, match="recorded at step 1[01].*give `restart` the `step`"):
        relora.save(model, tmp_path, 20)
    assert merge_steps(tmp_path) == [10, 11]
    change(model)
    relora.restart(model, step=27)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relora.save(model, tmp_path, 30)
    assert merge_steps(tmp_path) == [10, 11, 27]


def test_a_checkpoint_is_never_from_after_the_merge_of_its_step(tmp_path: Path) -> None:
    model = relora.wrap(Perceptron(), rank=2)
    relora.restart(model, step=10)
    for step in (9, 10):
        with pytest.raises(WrongSettingError, match="save before you restart"):
            relora.save(model, tmp_path, step)
    relora.save(model, tmp_path, 11)
    for step in (9, 10):
        with pytest.raises(WrongSettingError, match=f"`step` is {step}"):
            relora.restart(model, step=step)
    with pytest.raises(WrongSettingError, match="at least 0"):
        relora.save(model, tmp_path, -1)


@pytest.mark.slow
def test_a_run_of_a_model_of_nobodys_is_analysed(tmp_path: Path) -> None:
    model = relora.wrap(Perceptron(), rank=2)
    for step in (0, 5, 10):
        relora.save(model, tmp_path / "run", step)
        relora.restart(model, step=step)
        change(model)
    table = rs.analyze(tmp_path / "run", components=["weight", "merge"], jobs=1)
    assert isinstance(table, pd.DataFrame)
    assert set(table.loc[table["component"] == "merge", "name"]) == {
        "first.weight",
        "second.weight",
    }
    assert table.loc[(table["component"] == "merge") & (table["step"] == 5), "rows"].tolist() == [
        24,
        40,
    ]


def test_a_folder_that_cannot_be_written_leaves_the_merges_waiting(
    tmp_path: Path,
) -> None:
    model = relora.wrap(Perceptron(), rank=2)
    relora.restart(model, step=3)
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(WrongSettingError, match="run: is a file"):
        relora.save(model, tmp_path / "run", 4)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "_flush", full)
        with pytest.raises(OSError, match="No space left"):
            relora.save(model, tmp_path / "full", 4)
    relora.save(model, tmp_path / "other", 4)
    assert merge_steps(tmp_path / "other") == [3]
