"""Models of other libraries, against what these write and an analysis reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import rankscope as rs
from tests.monitoring.training import adamw, small

peft = pytest.importorskip("peft")
models = pytest.importorskip("tests.relora.models")

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of peft about itself
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch about itself
]
KEY = ["step", "component", "name"]


def llama() -> Any:
    return models.llama(tied=False, layers=1)


def adapted(model: Any, base: Path, targets: list[str], **settings: Any) -> Any:
    model.save_pretrained(base)
    about = peft.LoraConfig(r=2, lora_alpha=8, target_modules=targets, **settings)
    return peft.get_peft_model(model, about)


MODELS: dict[str, Callable[[Path], Any]] = {
    "gpt2: Conv1D, fused, tied": lambda base: models.gpt2(),
    "rslora": lambda base: adapted(llama().bfloat16(), base, ["q_proj"], use_rslora=True),
    "dora": lambda base: adapted(llama(), base, ["q_proj", "down_proj"], use_dora=True),
    "lora on fused": lambda base: adapted(models.gpt2(), base, ["c_attn"], fan_in_fan_out=True),
    "trained head": lambda base: adapted(llama(), base, ["q_proj"], modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_live_as_saved(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    base, run = tmp_path / "base", tmp_path / "run"
    model = MODELS[name](base)
    components = "weight,adapter,update"
    optimizer, batch = adamw(model), torch.arange(12).reshape(2, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rs.Monitor(
            model, tmp_path / "live", every=1, share=None, components=components, roles="all",
            run="run", cosines=True,
        ) as monitor:  # fmt: skip
            for step in range(3):
                if step:
                    model(input_ids=batch, labels=batch).loss.backward()
                    optimizer.step()
                monitor.step(step)
                optimizer.zero_grad()
                model.save_pretrained(run / f"checkpoint-{step}")
    disk = rs.analyze(
        run, components=components, roles="all", jobs=1, base=base if base.exists() else None
    )
    live = rs.open_results(tmp_path / "live").metrics
    tables = [table.sort_values(KEY).reset_index(drop=True) for table in (live, disk)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert len(live) > 15


def measured(model: Any, out: Path) -> pd.DataFrame:
    components = "weight,base,adapter"
    with rs.Monitor(model, out, every=1, share=None, components=components) as monitor:
        monitor.step(0)
    table = rs.open_results(out).metrics
    return table[table["role"] == "q"].groupby("component")["spectral_norm"].first()


def with_b(model: Any, tmp_path: Path) -> Any:
    model = adapted(model, tmp_path / "base", ["q_proj"])
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


def test_a_merged_or_idle_adapter_is_none(tmp_path: Path) -> None:
    model = with_b(llama(), tmp_path)
    before = measured(model, tmp_path / "live")
    assert set(before.index) == {"weight", "base", "adapter"}
    model.merge_adapter()
    merged = measured(model, tmp_path / "merged")
    assert set(merged.index) == {"weight"}
    assert merged["weight"] == pytest.approx(before["weight"], rel=1e-5)
    model.unmerge_adapter()
    with model.disable_adapter():
        idle = measured(model, tmp_path / "idle")
    assert set(idle.index) == {"weight"}
    assert idle["weight"] == pytest.approx(before["base"], rel=1e-5)


def test_the_scale_is_that_of_the_layer_not_of_the_config(tmp_path: Path) -> None:
    model = with_b(llama(), tmp_path)
    before = measured(model, tmp_path / "one")["adapter"]
    for layer in model.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.scale_layer(3.0)
    assert measured(model, tmp_path / "two")["adapter"] == pytest.approx(3 * before)


def test_two_adapters_at_once_are_no_weight(tmp_path: Path) -> None:
    model = with_b(llama(), tmp_path)
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "other"])
    components = "weight,base,adapter"
    with rs.Monitor(model, tmp_path / "out", every=1, share=None, components=components) as monitor:
        monitor.step(0)
    results = rs.open_results(tmp_path / "out")
    assert "q" not in set(results.metrics["role"])
    assert "adds several adapters at once" in (tmp_path / "out" / "skipped.jsonl").read_text()


def test_wrapped_and_compiled_models_have_plain_names(tmp_path: Path) -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

    names = []
    for number, model in enumerate(
        (small(layers=1), Wrapper(small(layers=1)), torch.compile(small(layers=1), backend="eager"))
    ):
        out = tmp_path / str(number)
        with rs.Monitor(model, out, every=1, share=None, components="weight") as monitor:
            monitor.step(0)
        names.append(set(rs.open_results(out).metrics["name"]))
    assert names[0] == names[1] == names[2]
