"""What ``analyze`` ends with."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.analysis.results_folder import described
from rankscope.checkpoints.contents import Skip
from rankscope.cli.output import print_evaluations, print_notes, print_skips, print_summary
from rankscope.results.summary_tables import summary_tables
from tests.analysis.series import analysed, weights, write_step
from tests.analysis.summarised import summarise
from tests.conftest import (
    RANK,
    SHAPES,
    TinyRun,
    random_factors,
    random_weights,
    write_adapter,
)
from tests.reliability.commands import finished_command as rankscope


@pytest.fixture
def lora(tmp_path: Path, rng: np.random.Generator) -> Path:
    for step in (100, 200):
        write_adapter(tmp_path / "lora" / f"checkpoint-{step}", random_factors(rng), scale=2.0)
    return tmp_path / "lora"


def printed(capsys: pytest.CaptureFixture[str], path: Path, *components: str) -> list[list[str]]:
    """Words of every line of the summary; a run of numbers is one word."""
    found = analysed(path, *components)
    print_summary(described(found), named=found.selection.named)
    lines = capsys.readouterr().out.replace(" → ", "→").splitlines()
    return [line.split() for line in lines]


def test_adapters_alone_have_a_table_by_role(
    lora: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    lines = printed(capsys, lora)
    start = lines.index(["adapter:", "first→last", "step"])
    heading = ["run", "role", "step", "matrices", "PER", "effective", "rank", "rank"]
    heading += ["max.", "rank", "κ", "over", "rank"]
    assert lines[start + 1] == heading
    rows = {line[1]: line for line in lines[start + 2 : start + 9]}
    assert set(rows) >= {"q", "k", "v", "o"}
    assert rows["q"][2:4] == ["100→200", "2"] and rows["q"][6:8] == [f"{RANK}→{RANK}", f"{RANK}"]
    found = analysed(lora).table
    mean = (
        found.query("role == 'q' and component == 'adapter'")
        .groupby("step")["effective_rank"]
        .mean()
    )
    assert rows["q"][5] == f"{mean[100]:.4g}→{mean[200]:.4g}"


def test_a_run_of_adapters_alone_is_not_lost_among_others(
    lora: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    for step in (100, 200):
        write_step(lora.parent / "full", step, random_weights(rng))
    lines = printed(capsys, lora.parent)
    start = lines.index(["adapter:", "first→last", "step"]) + 2
    assert {line[0] for line in lines[start : start + len(SHAPES)]} == {"lora"}


def test_one_checkpoint_has_one_number(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    for path in (lora / "checkpoint-100", write_step(tmp_path / "full", 5, random_weights(rng))):
        lines = printed(capsys, path)
        assert len(lines) > 4
        assert not any("→" in word for line in lines for word in line)


def test_an_update_of_the_second_step_alone_has_one_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    for step in (1, 2):
        write_step(tmp_path, step, weights(rng))
    lines = printed(capsys, tmp_path)
    tables = {line[0]: i for i, line in enumerate(lines) if line[0] in ("weight:", "update:")}
    assert any("→" in word for word in lines[tables["weight:"] + 2])
    assert not any("→" in word for word in lines[tables["update:"] + 2])


@pytest.mark.slow
def test_what_was_asked_for_by_name_has_its_table(
    relora_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, relora_run.path)
    titles = {line[0] for line in lines}
    assert {"weight:", "update", "merged"} <= titles and not {"adapter:", "merge:"} & titles
    title = ["other", "components,", "all", "roles", "together:", "first→last", "step"]
    start = lines.index(title)
    others = [line[1] for line in lines[start + 2 : start + 6]]
    assert {*others} == {"adapter", "merge", "gradient", "ov"}
    spans = [line[1:4] for line in lines if line[0] == "update"]
    assert spans == [["of", "a", "cycle:"], ["within", "a", "cycle:"]]
    asked = ("weight", "adapter", "cumulative_update", "merge")
    titles = {line[0] for line in printed(capsys, relora_run.path, *asked)}
    assert {"weight:", "adapter:", "cumulative", "merge:"} <= titles


def test_the_unit_of_the_steps_labels_the_tables(
    lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from rankscope.analysis.analyze import analyze_runs
    from rankscope.analysis.request import Selection
    from rankscope.checkpoints.discovery import survey
    from tests.analysis.series import Inline

    met = survey([lora])
    runs = tuple(replace(run, unit="epoch") for run in met.runs)
    found = analyze_runs(replace(met, runs=runs), Selection(), engine=Inline())
    assert found.unit == "epoch"
    print_summary(described(found), named=())
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("adapter: first → last epoch")
    assert "epoch" in lines[start + 1].split()


def test_adapters_that_start_at_zero_are_no_surprise(relora_run: TinyRun) -> None:
    findings = described(analysed(relora_run.path))["summary"]["findings"]
    assert not any("zero" in finding for finding in findings)


def test_few_skips_are_listed_and_many_are_counted_by_kind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = [Skip(f"/x/{n}", "", "cut-short", "is cut short") for n in range(8)]
    print_skips(few)
    assert capsys.readouterr().err.count("is cut short") == 8
    many = [Skip(f"/x/{n}", "", "cut-short", "is cut short") for n in range(80)]
    print_skips([*many, Skip("/y", "", "empty", "is empty")])
    assert capsys.readouterr().err.splitlines() == [
        "skipped: /x/0: is cut short [cut-short] (and 79 more like it)",
        "skipped: /y: is empty [empty]",
    ]
    kinds = [Skip("/x", str(n), "new", f"is new {n}") for n in range(60)]
    print_skips(kinds, file="skipped.jsonl")
    print_notes(kinds)
    lines = capsys.readouterr().err.splitlines()
    assert lines[20] == "… and 40 more kinds, all in skipped.jsonl"
    assert lines[21] == "note: /x: '0': is new 0 [new]" and len(lines) == 42


@pytest.mark.slow
def test_notes_are_said_and_cost_nothing(lora: Path, tmp_path: Path) -> None:
    done = rankscope("analyze", lora, "--out", tmp_path / "out", "--jobs", 1)
    assert done.returncode == 0
    assert done.stderr.startswith("note: ") and "base model" in done.stderr
    again = rankscope("analyze", lora, "--out", tmp_path / "out", "--jobs", 1)
    assert again.stderr == done.stderr and " 0 newly computed" in again.stdout
    done = rankscope("analyze", lora, "--out", tmp_path / "two", "--components", "weight")
    assert done.returncode == 4
    assert "has no weight: its adapters stand alone" in done.stderr
    assert done.stderr.splitlines()[-1] == "rankscope: no matrix could be analysed"


@pytest.mark.slow
def test_a_base_and_a_start_are_options(
    lora: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_step(tmp_path / "start", 0, random_weights(rng))
    base = tmp_path / "start" / "checkpoint-0"
    done = rankscope(
        "analyze", lora, "--out", tmp_path / "out", "--jobs", 1, "--base", base, "--since", base,
        "--components", "cumulative_update",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "cumulative update: first → last step" in done.stdout
    assert "100 → 200" in done.stdout
    done = rankscope("analyze", lora, "--since", base, "--components", "weight", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_infinite_condition_number_is_valid_json(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    q = "model.layers.0.self_attn.q_proj."
    for step in (1, 2):
        factors = {
            f"{q}weight_in": rng.normal(size=(16, 2)).astype(np.float32),
            f"{q}weight_out": rng.normal(size=(12, 2)).astype(np.float32),
        }
        (tmp_path / "run" / f"step_{step}").mkdir(parents=True)
        save_file(factors, tmp_path / "run" / f"step_{step}" / "model.safetensors")
    done = rankscope("analyze", tmp_path / "run", "--out", tmp_path / "out", "--jobs", 1)
    assert done.returncode == 0 and "inf → inf" in done.stdout
    again = rankscope("analyze", tmp_path / "run", "--out", tmp_path / "out", "--json")
    record = json.loads(again.stdout, parse_constant=lambda word: pytest.fail(word))
    (line,) = [one for one in record["summary"]["lines"] if one["component"] == "weight"]
    assert line["condition"] == ["inf", "inf"]


def row(step: int, per: float | None, **what: object) -> dict[str, object]:
    """A row of the table, as far as a summary reads it."""
    usual = {
        "run": "a", "step": step, "layer": 0, "role": "q", "component": "weight", "name": "q",
        "head": None, "expert": None, "per_error": 0.0,
        "window": None, "since": None, "rows": 9, "cols": 9, "dtype": "float32", "status": "ok",
        "effective_rank": per and 9 * per, "per": per, "per_resolved": per, "numerical_rank": 9,
        "max_rank": 9, "noise_source": "storage", "condition_number": 2.0,
        "condition_number_status": "ok", "condition_number_r": 2.0,
    }  # fmt: skip
    return usual | what


def falling(layer: int, *per: float, **what: object) -> list[dict[str, object]]:
    return [
        row(50 * at, value, layer=layer, name=f"q{layer}", **what) for at, value in enumerate(per)
    ]


def test_a_finding_says_when_a_rank_left_its_band_and_where() -> None:
    stays, flat = [0.9] * 9, [0.4] * 6
    rows = [
        *falling(0, *stays),
        *falling(1, 0.9, 0.9, 0.7, *flat),
        *falling(2, 0.9, 0.85, 0.8, 0.75, *[0.7] * 5),
    ]
    (finding,) = summarise(rows).findings
    assert finding == (
        "a: PER of weights fell most in layer 1 q, 0.900 → 0.700 → 0.400 (left its band by step "
        "100, complete by step 150); 2 of 3 matrices left their band, the first layer 2 q by step "
        "50; mean over matrices 0.900 → 0.667"
    )
    (finding,) = summarise(falling(1, 0.9, 0.9, *flat), units={"a": "epoch"}).findings
    assert "0.900 → 0.400;" in finding  # one series is too little to know its fluctuation
    others = [one for layer in (2, 3) for one in falling(layer, *stays)]
    (finding,) = summarise([*falling(1, 0.9, 0.9, *flat), *others], units={"a": "epoch"}).findings
    assert "(complete by epoch 100)" in finding
    (finding,) = summarise([*falling(1, *np.linspace(0.9, 0.3, 7)), *others]).findings
    assert "(left its band by step 50, still moving at step 300)" in finding


def test_updates_that_rise_are_said_and_noise_is_not() -> None:
    rises = [0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6]
    others = [one for layer in (2, 3) for one in falling(layer, *[0.2] * 7, component="update")]
    update = [*falling(1, *rises, component="update"), *others]
    weight = row(0, 0.9)
    said = summarise([weight, *update]).findings
    assert said[0].startswith("a: PER of updates rose most in layer 1 q, 0.200 → 0.600 (complete")
    noisy = [one | {"per_resolved": 0.1} for one in update]
    assert not any("rose" in finding for finding in summarise([weight, *noisy]).findings)


@pytest.mark.parametrize(("runs", "rows"), [("abc", 21), ("abcd", 4)])
def test_of_many_runs_updates_have_one_row_for_all_roles(runs: str, rows: int) -> None:
    roles = ("q", "k", "v", "o", "gate", "up", "down")
    measured = [
        row(step, 0.5, run=run, role=role, name=role, component=component)
        for run in runs for role in roles for component in ("weight", "update") for step in (0, 1)
    ]  # fmt: skip
    record = {"summary": asdict(summarise(measured)), "runs": [{"name": r, "unit": "step"}
                                                              for r in runs]}  # fmt: skip
    weights, updates = summary_tables(record)[0]
    assert (len(weights.rows) - 1, len(updates.rows) - 1) == (7 * len(runs), rows)
    assert len(summary_tables(record, named=["update"])[0][1].rows) - 1 == 7 * len(runs)


def test_the_mean_is_over_matrices_that_are_known_at_both_ends() -> None:
    rows = [*falling(0, 0.9, 0.6, 0.3), *falling(1, 0.9, 0.5, 0.2)]
    rows[-1]["per_resolved"] = 0.1  # the last PER of the second may be noise
    (finding, *_) = summarise(rows).findings
    assert finding.endswith("; mean over 1 of 2 matrices 0.900 → 0.300")
    assert summarise(falling(0, 0.9, 0.5, 0.2)).findings[0].endswith("matrices 0.900 → 0.200")


def test_weights_that_only_fluctuate_are_not_said_to_move(rng: np.random.Generator) -> None:
    for _ in range(20):
        noise = 0.5 + 0.02 * rng.normal(size=(8, 9))
        rows = [one for layer in range(8) for one in falling(layer, *noise[layer])]
        assert not any("band" in finding for finding in summarise(rows).findings)


def test_two_steps_with_the_same_weights_are_why_updates_are_zero(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    first, last = weights(rng), weights(rng)
    for step, tensors in ((10, first), (20, first), (30, last)):
        write_step(tmp_path / "run", step, tensors)
    findings = described(analysed(tmp_path / "run"))["summary"]["findings"]
    assert (
        "run: step 20 holds the same weights as step 10 in all 4 measured matrices: that is why "
        "the updates between them are zero" in findings
    )
    assert not any("no rank" in finding for finding in findings)


def test_one_merge_and_one_matrix_are_singular() -> None:
    merged = row(10, 0.5, component="merged_total")
    (finding,) = summarise([merged]).findings
    assert "after 1 merge their" in finding
    noisy = row(10, 0.5, per_resolved=0.1, component="base")
    assert "PER of 1 base matrix may be" in summarise([noisy]).findings[-1]


def test_zero_matrices_are_named_unless_that_is_expected_or_said() -> None:
    adapters = [row(step, None, component="adapter", status="zero") for step in (0, 30)]
    frozen = row(20, None, component="update", since=10, status="zero")
    moving = row(20, 0.5, component="update", since=10, name="k")
    merge = row(20, None, component="merge", status="zero")
    finding = summarise([*adapters, frozen, moving, merge]).findings[-1]
    assert finding.endswith(
        "no rank: a adapter (1 at step 30), a update (1 at step 20: the weights did not change), "
        "a merge (1 at step 20)"
    )


@pytest.mark.slow
def test_per_is_spelled_out_once(relora_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    found = analysed(relora_run.path)
    print_summary(described(found), named=())
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("PER: proportional effective rank") for line in lines) == 1
    for term in ("κ: ", "κ over rank: ", "rank: ", "first → last step: "):
        assert sum(line.startswith(term) for line in lines) == 1
    assert lines[-1].startswith("docs/numerics.md: ")


def test_intervals_over_few_documents_are_called_nominal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure = {"value": 4.0, "ci_low": 3.9, "ci_high": 4.1}
    for documents, is_nominal in ((1, False), (2, True), (49, True), (50, False)):
        at = {"perplexity": measure | {"n": documents}}
        one = {"run": "a", "task": "novel", "steps": [1], "first": at, "last": at}
        print_evaluations([one | {"tokens_per_second": 9.0}])
        assert ("nominal" in capsys.readouterr().out) == is_nominal
