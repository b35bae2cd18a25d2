"""Where a series stops being one training, and where it only looks so."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope.analysis.plan import plan_run
from rankscope.analysis.request import Selection
from rankscope.analysis.results_folder import described
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.discovery import open_run
from rankscope.pipeline.execution import Plan
from tests.analysis.series import SHAPES, analysed, effective_rank, renamed, weights, write_step
from tests.conftest import Tensors, TinyRun, random_factors, random_weights, write_adapter

Log = list[dict[str, object]]


def planned(path: Path, selection: Selection | None = None) -> dict[int, Plan[SpectraTask]]:
    run = open_run(path)
    return {plan.step: plan for plan in plan_run(run, selection or Selection())}


def skips_of(plans: dict[int, Plan[SpectraTask]], reason: str = "") -> list[Skip]:
    found = [skip for plan in plans.values() for skip in plan.skips]
    return [skip for skip in found if skip.reason.startswith(reason)]


def updates(plan: Plan[SpectraTask]) -> set[str]:
    return {t.component.name for t in plan.tasks if t.component.kind == "update"}


def logged(last: int, *, offset: float = 0.0, every: int = 50) -> Log:
    return [{"step": s, "loss": 3 - s / 1000 + offset} for s in range(every, last + 1, every)]


GPT2 = ("attn.c_proj", "mlp.c_fc")
OTHER = {"trunk.0.a": (24, 16), "trunk.0.b": (16, 24), "trunk.1.a": (24, 16), "trunk.1.b": (9, 24)}
LARGER = {name: (2 * rows, 2 * cols) for name, (rows, cols) in SHAPES.items()}
HALF_OTHER = {**OTHER, **dict(list(SHAPES.items())[:1])}


@pytest.mark.parametrize(
    ("shapes", "config", "log", "words"),
    [
        (OTHER, {}, None, "other names, 0 of 4 matrices in common"),
        (HALF_OTHER, {}, None, "other names, 1 of 5 matrices in common"),
        (LARGER, {}, None, r"other shapes of 4 of 4 matrices .*\[16, 24\], \[32, 48\]"),
        (SHAPES, {"num_hidden_layers": 9}, None, "num_hidden_layers 2 and now states 9"),
        (SHAPES, {"model_type": "mistral"}, None, "model_type llama and now states mistral"),
        (SHAPES, {"num_attention_heads": 8}, None, "num_attention_heads 4 and now states 8"),
        (SHAPES, {}, logged(300, offset=0.1), "the history of another run: .* loss .* at step 50"),
    ],
)
def test_no_update_crosses_a_break_and_both_steps_are_named(
    shapes: dict[str, tuple[int, int]], config: dict[str, object], log: Log | None, words: str,
    tmp_path: Path, rng: np.random.Generator,
) -> None:  # fmt: skip
    for step in (100, 200):
        own = {"num_hidden_layers": 2}
        write_step(tmp_path, step, weights(rng), config=own, log=log and logged(step))
    for step in (300, 400):
        own = {"num_hidden_layers": 2} | config
        later = log and logged(step, offset=0.1)
        write_step(tmp_path, step, weights(rng, shapes), config=own, log=later)
    plans = planned(tmp_path)
    (skip,) = skips_of(plans)
    assert skip.reason == "break" and skip.path == str(tmp_path / "checkpoint-300")
    assert skip.message.startswith("step 300 does not continue step 200: ")
    assert re.search(words, skip.message)
    assert [len(updates(plan)) for plan in plans.values()] == [0, 4, 0, len(shapes)]


def test_another_reading_of_the_same_tensors_is_a_break(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """GPT-2 stores its matrices (inputs, outputs); square ones do not show it."""
    shapes = {f"h.{layer}.{name}": (16, 16) for layer in range(2) for name in GPT2}
    for step, config in ((100, {}), (200, {"model_type": "unheard-of"})):
        own = {"model_type": "gpt2"} | config
        folder = write_step(tmp_path, step, weights(rng, shapes), config=own)
        if step == 200:
            (folder / "config.json").write_text("{}")
    assert open_run(tmp_path)[200].contents.family != "gpt2"
    (skip,) = skips_of(planned(tmp_path))
    assert skip.reason == "break" and "its family was gpt2" in skip.message


def test_a_training_that_goes_on_is_one_series(relora_run: TinyRun, full_run: Path) -> None:
    for path in (relora_run.path, full_run):
        plans = planned(path)
        assert not skips_of(plans)
        assert all(updates(plan) for plan in list(plans.values())[1:])


NAN = math.nan
LOGS: dict[str, Callable[[int], Log]] = {
    "the same losses": logged,
    "no log": lambda _: [],
    "a log without losses": lambda last: [{"step": last, "grad_norm": last}],
    "a loss that is not finite": lambda last: [{"step": s, "loss": NAN} for s in (50, last)],
    "only the last losses": lambda last: [{"step": last, "loss": last}],
    "evaluated again when resumed": lambda last: [
        {"step": 100, "eval_loss": 1.0 + k} for k in range(last // 100)
    ],
    "records that are no tables": lambda last: ["x", {"step": "y", "loss": last}],  # type: ignore[list-item]
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_a_log_that_continues_or_is_silent_is_not_a_break(
    log: Callable[[int], Log], tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (100, 200, 300):
        write_step(tmp_path, step, weights(rng), log=log(step))
    assert not skips_of(planned(tmp_path))


def test_a_damaged_log_is_no_break(tmp_path: Path, rng: np.random.Generator) -> None:
    for step in (100, 200):
        folder = write_step(tmp_path, step, weights(rng), log=logged(step))
    (folder / "config.json").write_text("{")
    assert not skips_of(planned(tmp_path), "break")


def test_logs_are_compared_over_what_cannot_be_read(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (100, 200, 300):
        offset = 0.0 if step == 100 else 0.1
        write_step(tmp_path, step, weights(rng), log=logged(step, offset=offset))
    (tmp_path / "checkpoint-200" / "model.safetensors").write_bytes(b"")
    plans = planned(tmp_path)
    assert "step 300 does not continue step 100" in skips_of(plans, "break")[0].message
    assert not updates(plans[300])


def test_adapters_that_come_and_go_are_no_break(tmp_path: Path, rng: np.random.Generator) -> None:
    """A warm start at full rank, then adapters on it, then merged again."""
    for step in (100, 200, 300):
        folder = tmp_path / f"checkpoint-{step}"
        write_step(tmp_path, step, random_weights(rng))
        if step == 200:
            write_adapter(folder / "adapter", random_factors(rng), scale=2.0)
    plans = planned(tmp_path)
    assert not skips_of(plans)
    assert len(updates(plans[200])) == len(updates(plans[300])) == 14


def test_adapters_alone_may_change_their_modules(tmp_path: Path, rng: np.random.Generator) -> None:
    for step, modules in ((100, 4), (200, 14), (300, 6)):
        factors = dict(list(random_factors(rng).items())[:modules])
        folder = tmp_path / f"checkpoint-{step}"
        write_adapter(folder, factors, scale=2.0)
        if step == 300:  # as `modules_to_save` does
            path = folder / "adapter_model.safetensors"
            head = {"base_model.model.lm_head.weight": np.ones((20, 16), np.float32)}
            save_file({**load_file(path), **head}, path)
    plans = planned(tmp_path)
    assert not skips_of(plans)
    write_step(tmp_path, 400, random_weights(rng))
    assert not skips_of(planned(tmp_path), "break")


@pytest.mark.parametrize(
    "prefixes",
    [
        ("", "model.", "model."),
        ("model.", "", "net.module."),
        ("", "_orig_mod.", "student."),
        ("", "ema.model.", "module."),
        ("learner.", "", "learner."),
    ],
)
def test_a_prefix_of_all_names_is_said_and_costs_nothing(
    prefixes: tuple[str, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    series = {step: weights(rng) for step in (100, 200, 300)}
    for prefix, (step, tensors) in zip(prefixes, series.items(), strict=True):
        save_file(renamed(tensors, prefix), tmp_path / f"step_{step}.safetensors")
    found = analysed(tmp_path, "update", "weight")
    assert not found.skips
    assert any("prefix" in note.message for note in found.notes)
    assert len({row["name"] for row in found.rows}) == 4
    for row in [row for row in found.rows if row["component"] == "update"]:
        name = row["name"].removeprefix(prefixes[0])
        change = series[row["step"]][name] - series[row["step"] - 100][name].astype(np.float64)
        assert row["effective_rank"] == pytest.approx(effective_rank(change), rel=1e-9)
    assert sum(row["component"] == "update" for row in found.rows) == 8


def test_a_prefix_is_not_guessed_with_one_mismatch(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    short = dict(list(SHAPES.items())[:3])
    turned = {name: shape[::-1] for name, shape in SHAPES.items()}
    one_off = {**SHAPES, "layers.0.mlp.up_proj": (24, 17)}
    for number, shapes in enumerate((short, turned, one_off)):
        run = tmp_path / str(number)
        write_step(run, 100, weights(rng))
        write_step(run, 200, renamed(weights(rng, shapes), "wrapped."))
        plans = planned(run)
        assert [skip.reason for skip in skips_of(plans)] == ["break"]
        assert not updates(plans[200])


def test_one_layer_is_not_taken_for_the_next(tmp_path: Path, rng: np.random.Generator) -> None:
    for step, layer in ((100, 0), (200, 1)):
        own = {name: shape for name, shape in SHAPES.items() if f".{layer}." in name}
        write_step(tmp_path, step, weights(rng, own))
    assert [skip.reason for skip in skips_of(planned(tmp_path))] == ["break"]


def test_the_update_after_an_absent_tensor_spans_the_gap(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    gone, series = "layers.1.mlp.up_proj.weight", {s: weights(rng) for s in (100, 200, 300, 400)}
    for step, tensors in series.items():
        kept = {n: t for n, t in tensors.items() if step not in (200, 300) or n != gone}
        write_step(tmp_path, step, kept)
    found = analysed(tmp_path, "update")
    (skip,) = found.skips
    assert (skip.tensor, skip.reason) == (gone, "absent")
    assert "is in step 100 but not in step 200" in skip.message
    for row in found.rows:
        before = 100 if row["name"] == gone else row["step"] - 100
        change = series[row["step"]][row["name"]].astype(np.float64) - series[before][row["name"]]
        assert row["effective_rank"] == pytest.approx(effective_rank(change), rel=1e-9)
    assert [row["step"] for row in found.rows if row["name"] == gone] == [400]


def test_a_new_tensor_is_named_once(tmp_path: Path, rng: np.random.Generator) -> None:
    new = {"layers.2.mlp.up_proj": (24, 16)}
    for step in (100, 200, 300):
        write_step(tmp_path, step, weights(rng, SHAPES if step == 100 else SHAPES | new))
    plans = planned(tmp_path)
    assert [(skip.tensor, skip.reason) for skip in skips_of(plans)] == [
        ("layers.2.mlp.up_proj.weight", "new")
    ]
    assert len(updates(plans[200])) == 4 and len(updates(plans[300])) == 5
    assert not skips_of(planned(tmp_path, Selection.of(layers=[0])))


def test_what_a_skip_names_already_is_not_absent_too(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    name = "layers.0.mlp.up_proj.weight"
    for step in (100, 200):
        tensors: Tensors = weights(rng)
        if step == 200:
            tensors[name] = np.ones((24, 16), np.int8)  # type: ignore[assignment]
        write_step(tmp_path, step, tensors)
    assert {skip.reason for skip in skips_of(planned(tmp_path)) if skip.tensor == name} == {
        "quantised"
    }


@pytest.mark.parametrize(("before", "after"), [(20, 24), (24, 20)])
def test_a_resized_vocabulary_is_a_misfit_and_no_break(
    before: int, after: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    for step, size in ((100, before), (200, after)):
        tensors = random_weights(rng)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = rng.normal(size=(size, 16)).astype(np.float32)
        write_step(tmp_path, step, tensors)
    found = analysed(tmp_path)
    assert not found.skips
    assert sum(row["component"] == "update" for row in found.rows) == 14


def test_the_summary_does_not_compare_across_a_break(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (100, 200, 300, 400):
        write_step(tmp_path, step, weights(rng, SHAPES if step < 300 else OTHER))
    record = described(analysed(tmp_path))
    assert record["breaks"] == {tmp_path.name: 300}
    assert "breaks before step 300" in record["summary"]["findings"][0]
    for line in record["summary"]["lines"]:
        assert line["steps"] == ((300, 400) if line["component"] == "weight" else (400, 400))
    json.dumps(record)
