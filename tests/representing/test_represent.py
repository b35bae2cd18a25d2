"""A call after another computes what is new and no more, and no number is of anything else."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import rankscope as rs
from rankscope.cli.app import app
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from rankscope.evaluation import model_engine
from rankscope.pipeline import curves
from rankscope.pipeline.seen_files import TICK
from rankscope.representations.feature_metrics import FEATURE_COLUMNS, FeatureStatus
from rankscope.representations.feature_sums import BLOCKS
from rankscope.representations.probe_features import SIMILARITY_COLUMNS
from rankscope.representing.feature_files import kept_path, read_features, read_kept
from rankscope.representing.feature_store import WHY
from rankscope.representing.network_features import collect
from rankscope.results.columns import INPUT_ENERGIES_FILE, OWN, SIMILARITIES_FILE
from tests.evaluation.models import DOCUMENTS, write_hugging_face, write_tokenizer

STEPS = [0, 5, 10]
TEXTS = [f"{i} {text}" for i in range(40) for text in DOCUMENTS[:3]]
Matrix = NDArray[np.float64]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of three checkpoints each, with one tokenizer."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    model = write_hugging_face(folder / "first", "llama")
    weights = load_file(folder / "first" / "model.safetensors")
    for number, run in enumerate(("one", "two")):
        for step in STEPS:
            place = folder / run / f"checkpoint-{step}"
            model.config.save_pretrained(place)
            torch.manual_seed(number)
            changed = {name: w + 0.01 * step * torch.randn_like(w) for name, w in weights.items()}
            save_file(changed, place / "model.safetensors", metadata={"format": "pt"})
        write_tokenizer(folder / run, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    shutil.rmtree(folder / "first")
    return folder


@dataclass(frozen=True)
class Stage:
    """A folder with runs, a text and room for results."""

    runs: Path
    text: Path
    out: Path

    def weights(self, step: int, run: str = "one") -> Path:
        return self.runs / run / f"checkpoint-{step}" / "model.safetensors"

    def stored(self, step: int, run: str = "one") -> Path:
        (found,) = self.out.glob(f"representations/{run}/*/step-{step:08d}.safetensors")
        return found

    def change(self, step: int, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        tensors = load_file(self.weights(step))
        name = "model.layers.0.mlp.down_proj.weight"
        tensors[name] = change(tensors[name])
        save_file(tensors, self.weights(step), metadata={"format": "pt"})

    def represent(self, **settings: Any) -> pd.DataFrame:
        given = {"tokens": 400, "window": 12, "text": self.text, "out": self.out, **settings}
        paths = given.pop("paths", self.runs / "one")
        return rs.represent(paths, **given)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in self.out.rglob("*")
            if path.is_file() and path.name != "representations.json"
        }

    @property
    def results(self) -> rs.Results:
        return rs.open_results(self.out)


@pytest.fixture
def stage(made: Path, tmp_path: Path) -> Stage:
    shutil.copytree(made, tmp_path / "runs")
    text = tmp_path / "novel.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    return Stage(tmp_path / "runs", text, tmp_path / "out")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The steps of the models that were opened."""
    steps: list[int] = []
    real = model_engine.open_text_model

    def noted(checkpoint: Any, *args: Any, **named: Any) -> Any:
        steps.append(checkpoint.step)
        return real(checkpoint, *args, **named)

    monkeypatch.setattr(model_engine, "open_text_model", noted)
    return steps


def exact_rankme(x: Matrix) -> float:
    s = np.linalg.svd(x, compute_uv=False)
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


TUPLES = np.array(list(permutations(range(BLOCKS), 4))).T


def exact_cka(x: Matrix, y: Matrix, blocks: NDArray[np.int64]) -> float:
    """CKA from HSIC's definition on n×n kernels, as a mean over tuples of different blocks."""
    mean = np.eye(BLOCKS)[:, blocks]
    mean /= mean.sum(axis=1, keepdims=True)
    a, b, c, d = TUPLES

    def hsic(k: Matrix, other: Matrix) -> float:
        both, first, second = (mean @ one @ mean.T for one in (k * other, k, other))
        one_side, other_side = k @ mean.T, other @ mean.T  # (n, blocks)
        shared = np.einsum("bn,nc,nd->bcd", mean, one_side, other_side)
        means = both[a, b] + first[a, b] * second[c, d] - 2 * shared[a, b, c]
        return float(means.mean())

    k, other = x @ x.T, y @ y.T
    return hsic(k, other) / float(np.sqrt(hsic(k, k) * hsic(other, other)))


@pytest.mark.slow
def test_numbers_and_comparisons_are_those_of_the_kept_features(stage: Stage) -> None:
    table = stage.represent(kept=400, compare="all", paths=[stage.runs / "one", stage.runs / "two"])
    assert len(table) == 2 * 3 * 4
    assert set(table["status"]) == {"ok"}
    kept = {
        (run, step): read_kept(
            kept_path(stage.stored(step, run)), read_features(stage.stored(step, run)).key
        )
        for run in ("one", "two")
        for step in STEPS
    }
    places = {(place.layer, place.at): place for place in kept["one", 0].features}
    for row in table.to_dict("records"):
        x = kept[row["run"], row["step"]].features[places[row["layer"], row["at"]]]
        assert x.shape == (400, 16)
        assert row["rankme"] == pytest.approx(exact_rankme(x.astype(float)), rel=1e-6)
        assert row["rankme_low"] < row["rankme"] < row["rankme_high"] < 16.5
    pairs = stage.results.similarities
    for row in pairs.to_dict("records"):
        x = kept[row["run"], row["step"]].features[places[row["layer"], row["at"]]]
        other = places[row["against_layer"], row["against_at"]]
        y = kept[row["against_run"], row["against_step"]].features[other]
        assert row["cka"] == pytest.approx(
            exact_cka(x.astype(float), y.astype(float), kept[row["run"], row["step"]].blocks),
            abs=1e-6,
        )
    counts = pairs.groupby("comparison").size().to_dict()
    assert counts == {"last": 2 * 2 * 4, "previous": 2 * 2 * 4, "layers": 6 * 6, "runs": 3 * 4}
    last = pairs[pairs["comparison"] == "last"]
    assert set(last["against_step"]) == {10}
    assert set(last["step"]) == {0, 5}
    previous = pairs[pairs["comparison"] == "previous"]
    assert set(zip(previous["step"], previous["against_step"], strict=True)) == {(5, 0), (10, 5)}
    of_runs = pairs[pairs["comparison"] == "runs"]
    assert set(zip(of_runs["run"], of_runs["against_run"], strict=True)) == {("one", "two")}
    assert (of_runs["step"] == of_runs["against_step"]).all()
    # At step 0 both runs have the same weights.
    assert of_runs[of_runs["step"] == 0]["cka"].to_numpy() == pytest.approx(1, abs=1e-12)
    assert (of_runs[of_runs["step"] == 10]["cka"] < 0.999).all()


def test_a_second_call_opens_no_model_and_writes_nothing(stage: Stage, opened: list[int]) -> None:
    first = stage.represent()
    assert opened == STEPS
    files = stage.files()
    assert_frame_equal(stage.represent(), first)
    assert opened == STEPS
    assert stage.files() == files


def test_all_that_is_written_is_known_as_results(stage: Stage) -> None:
    stage.represent(steps=[5, 10], energy="weight")
    written = {path.name for path in stage.out.iterdir()}
    assert {SIMILARITIES_FILE, INPUT_ENERGIES_FILE} <= written <= OWN


def test_new_steps_and_kinds_of_places_join_those_that_are_there(
    stage: Stage, opened: list[int]
) -> None:
    stage.represent(steps=[0, 5])
    stage.represent(steps=[10], at=["mlp", "attention"])
    assert opened == [0, 5, 10]  # once for both kinds
    stage.represent(steps=[10])
    assert opened == [0, 5, 10, 10]
    table = stage.results.representations
    assert table.groupby("at")["step"].unique().map(list).to_dict() == {
        "attention": [10],
        "block": STEPS,
        "embedding": STEPS,
        "final": STEPS,
        "mlp": [10],
    }
    assert set(stage.results.similarities["step"]) == {0, 5}


def test_other_settings_replace_what_was_there(stage: Stage) -> None:
    stage.represent(steps=[0, 5])
    stage.represent(steps=[0], tokens=320)
    table = stage.results.representations
    assert set(table["step"]) == {0}
    assert set(table["tokens"]) == {320}
    assert stage.results.similarities.empty


def test_a_changed_checkpoint_is_looked_into_anew(stage: Stage, opened: list[int]) -> None:
    before = stage.represent()
    opened.clear()
    stage.change(5, lambda w: 2 * w)
    after = stage.represent()
    assert opened == [5]
    same = before["step"] != 5
    assert_frame_equal(after[same], before[same])
    changed = (before["step"] == 5) & (before["at"] == "block")
    assert (after[changed]["rankme"] != before[changed]["rankme"]).all()


def test_numbers_are_of_the_text_that_they_are_kept_under(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that is written to while models are opened costs the call, and no number is stored."""
    real = model_engine.open_text_model
    other = stage.text.read_text().replace("cats", "dogs")

    def write_and_open(*args: Any, **named: Any) -> Any:
        stage.text.write_text(other)
        return real(*args, **named)

    monkeypatch.setattr(model_engine, "open_text_model", write_and_open)
    with pytest.raises(RankscopeError, match=r"novel\.jsonl: was written to while it was read"):
        stage.represent(steps=[0])
    monkeypatch.undo()
    assert not list(stage.out.rglob("step-*"))
    assert set(stage.represent(steps=[0])["status"]) == {"ok"}


def test_a_call_with_nothing_new_looks_at_the_states_of_files_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys: list[object] = []
    real = curves.survey_here
    monkeypatch.setattr(curves, "survey_here", lambda *a, **k: surveys.append(a) or real(*a, **k))

    def settled() -> pd.DataFrame:
        time.sleep(2 * TICK / 1e9)  # what is younger may change once more without a trace
        return stage.represent(steps=[5], compare="none")

    def has_surveyed() -> bool:
        surveys.clear()
        stage.represent(steps=iter([5]), compare="none")
        return bool(surveys)

    first = settled()
    assert not has_surveyed()
    again = stage.represent(steps=[5], compare="none")
    assert_frame_equal(again, first)
    assert again.attrs == first.attrs
    changes: list[Callable[[], object]] = [
        lambda: stage.text.write_text(stage.text.read_text() + '{"text": "More."}\n'),
        stage.stored(5).unlink,
        (stage.out / "representations.csv").unlink,
        lambda: (stage.out / "evaluation.parquet").write_bytes(b""),  # losses may be there
    ]
    for change in changes:
        change()
        assert has_surveyed()
        settled()
        assert not has_surveyed()
    stage.represent(steps=[5], compare="none", kept=100)
    assert has_surveyed()  # another question has been answered since


@pytest.mark.parametrize(
    ("before", "models"), [("", []), ('{"text": "It was a bright cold day"}\n', [0])]
)
def test_text_that_cannot_be_read_is_the_only_error(
    before: str, models: list[int], stage: Stage, opened: list[int]
) -> None:
    stage.text.write_text(before + '{"txt": "none"}\n')
    with pytest.raises(RankscopeError, match=r"^[^:]*novel\.jsonl: line \d is not an object"):
        stage.represent()
    assert opened == models


def test_what_is_compared_with_a_changed_checkpoint_is_compared_anew(stage: Stage) -> None:
    stage.represent(steps=[0, 10], compare="last")
    before = stage.results.similarities.set_index("layer")["cka"]
    stage.change(10, lambda w: 2 * w.flip(0))
    stage.represent(steps=[0, 10], compare="last")
    after = stage.results.similarities.set_index("layer")["cka"]
    assert after[-1] == before[-1]  # the embedding
    assert (after[[0, 1, 2]] != before[[0, 1, 2]]).all()


def test_kept_features_of_other_numbers_are_not_compared(stage: Stage) -> None:
    stage.represent(steps=[0, 5], compare="none")
    shutil.copy(kept_path(stage.stored(5)), kept_path(stage.stored(0)))
    with pytest.warns(RankscopeWarning, match="belongs to other numbers"):
        stage.represent(steps=[0, 5], compare="last")
    assert stage.results.similarities.empty


def test_an_interrupted_call_costs_the_checkpoint_in_hand(
    stage: Stage, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(model: Any, taps: Any, probe: Any, **named: Any) -> Any:
        if len(opened) == 2:
            raise KeyboardInterrupt
        return collect(model, taps, probe, **named)

    monkeypatch.setattr("rankscope.representing.network_features.collect", stop)
    with pytest.raises(KeyboardInterrupt):
        stage.represent()
    monkeypatch.undo()
    assert not (stage.out / "representations.parquet").exists()
    stage.represent()
    assert len(list(stage.out.rglob("kept-*"))) == 3
    assert not list(stage.out.rglob(".tmp*"))


@pytest.mark.parametrize("which", ["numbers", "kept"])
def test_a_damaged_file_of_the_store_is_never_used(
    which: str, stage: Stage, opened: list[int]
) -> None:
    table = stage.represent(compare="none")
    path = stage.stored(5) if which == "numbers" else kept_path(stage.stored(5))
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    opened.clear()
    if which == "kept":  # it is read where something is compared only
        with pytest.warns(RankscopeWarning, match="is damaged .* was removed"):
            stage.represent(compare="last")
        assert opened == []
        assert set(stage.results.similarities["step"]) == {0}
    else:
        (stage.out / "representations.parquet").unlink()
    assert_frame_equal(stage.represent(compare="last")[table.columns], table)
    assert opened == [5]
    assert set(stage.results.similarities["step"]) == {0, 5}


def test_features_that_are_nan_have_a_row_that_says_so(stage: Stage) -> None:
    stage.change(5, lambda w: w * torch.nan)
    with pytest.warns(RankscopeWarning, match="features are NaN or infinite"):
        table = stage.represent(compare="last")
    at = table[table["step"] == 5].set_index("layer")
    assert at["status"].to_dict() == {-1: "ok", 0: "nonfinite", 1: "nonfinite", 2: "nonfinite"}
    assert at["rankme"].isna().tolist() == [False, True, True, True]
    assert set(table[table["step"] != 5]["status"]) == {"ok"}
    pairs = stage.results.similarities
    assert pairs[pairs["cka"].isna()][["step", "layer"]].to_numpy().tolist() == [
        [5, 0],
        [5, 1],
        [5, 2],
    ]


def test_with_too_few_tokens_there_is_a_status_and_no_rank(stage: Stage) -> None:
    with pytest.warns(RankscopeWarning, match="60 features of 16 dimensions.*raise `tokens`"):
        table = stage.represent(tokens=60, steps=[0])
    assert set(table["status"]) == {"too-few-tokens"}
    assert table["rankme"].isna().all()
    assert table["mean_norm"].notna().all()


def test_one_document_has_ranks_and_a_line_says_why_no_intervals(
    stage: Stage, tmp_path: Path
) -> None:
    text = tmp_path / "one.txt"
    text.write_text(" ".join(DOCUMENTS) * 40, encoding="utf-8")
    with pytest.warns(RankscopeWarning, match="one document, so there are no intervals"):
        table = stage.represent(text=text, tokens=200, steps=[0], compare="none")
    assert set(table["status"]) == {"one-block"}
    assert table["rankme"].notna().all() and table["rankme_low"].isna().all()


def test_every_status_of_features_has_a_reason() -> None:
    assert WHY.keys() == {*get_args(FeatureStatus)} - {"ok"}


def test_runs_with_different_tokens_are_not_compared_and_a_line_says_so(stage: Stage) -> None:
    path = stage.runs / "two" / "tokenizer_config.json"
    path.unlink()
    write_tokenizer(stage.runs / "two", {"bos_token": "e", "eos_token": "e"})
    table = stage.represent(paths=[stage.runs / "one", stage.runs / "two"], compare="runs,last")
    assert set(stage.results.similarities["comparison"]) == {"last"}
    (note,) = {note["message"] for note in table.attrs["notes"]}
    assert note.startswith("is not compared with one: another tokenizer")


def test_runs_are_compared_where_their_logs_have_one_loss(stage: Stage) -> None:
    for run, losses in (("one", (3.0, 2.0, 1.0)), ("two", (3.0, 2.6, 2.1))):
        history = [{"step": at, "eval_loss": loss} for at, loss in zip(STEPS, losses, strict=True)]
        state = {"global_step": 10, "log_history": history}
        (stage.runs / run / "checkpoint-10" / "trainer_state.json").write_text(json.dumps(state))
    both = [stage.runs / "one", stage.runs / "two"]
    stage.represent(paths=both, compare="loss")
    pairs = stage.results.similarities
    places = pairs[["run", "step", "against_run", "against_step", "loss", "against_loss"]]
    assert set(places.itertuples(index=False, name=None)) == {("one", 5, "two", 10, 2.0, 2.1)}
    assert set(pairs["loss_source"]) == {"validation"} and set(pairs["comparison"]) == {"loss"}
    assert len(pairs) == 4 and pairs["cka"].between(-1, 1).all()
    before = stage.files()
    stage.represent(paths=both, compare="loss")
    assert stage.files() == before


def test_runs_without_losses_are_not_compared_at_equal_loss_and_a_line_says_so(
    stage: Stage,
) -> None:
    both = [stage.runs / "one", stage.runs / "two"]
    table = stage.represent(paths=both, compare="loss", steps=[0])
    assert stage.results.similarities.empty
    (note,) = (note["message"] for note in table.attrs["notes"])
    assert note.startswith("is not compared with two at equal loss: no loss that both reached")


def test_similarities_of_few_documents_have_a_line_that_says_why_no_interval(
    stage: Stage, tmp_path: Path
) -> None:
    text = tmp_path / "four.jsonl"
    texts = [f"{i} " + " ".join(DOCUMENTS) * 8 for i in range(4)]
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    table = stage.represent(text=text, tokens=200, steps=[0, 5], compare="last")
    assert set(stage.results.similarities["status"]) == {"too-few-blocks"}
    (note,) = (note["message"] for note in table.attrs["notes"])
    assert note.startswith("the embedding of layer -1 at step 0 and 3 more places, compared: fewer")


def test_without_text_and_stored_activations_a_line_says_what_to_give(stage: Stage) -> None:
    with pytest.raises(RankscopeError, match="no activations that a training stored: give `text`"):
        stage.represent(text=())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": "heads"}, "`at`"),
        ({"features": "first"}, "`features`"),
        ({"compare": "first"}, "`compare`"),
        ({"compare": "last", "out": None}, "give a folder as `out`"),
        ({"tokens": 0}, "`tokens` is 0"),
        ({"kept": 0}, "`kept` is 0"),
        ({"steps": 7}, "`steps`"),
        ({"text": "nowhere.txt"}, "`text`"),
        ({"device": "tpu"}, "`device`"),
    ],
)
def test_wrong_settings_are_found_before_a_model_is_opened(
    settings: dict[str, Any], message: str, stage: Stage, opened: list[int]
) -> None:
    with pytest.raises(WrongSettingError, match=message):
        stage.represent(**settings)
    assert opened == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line_and_no_skip_of_each_checkpoint(stage: Stage) -> None:
    with pytest.raises(WrongSettingError, match=r'^`device` is "cuda", but torch finds no GPU'):
        stage.represent(device="cuda")


def test_models_in_bfloat16_have_a_floor_of_bfloat16(stage: Stage) -> None:
    fine = stage.represent(steps=[0], compare="none")
    coarse = stage.represent(steps=[0], compare="none", precision="bfloat16")
    assert (coarse["noise_floor"] > 1000 * fine["noise_floor"]).all()
    np.testing.assert_allclose(coarse["rankme"], fine["rankme"], rtol=0.02)


@pytest.mark.slow
def test_the_command_prints_and_exits_as_evaluate_does(stage: Stage) -> None:
    run = CliRunner().invoke
    given = ["represent", str(stage.runs), "--text", str(stage.text), "--out", str(stage.out)]
    given += ["--tokens", "400", "--window", "12"]
    found = run(app, given)
    assert found.exit_code == 0, found.output
    assert "novel, all tokens, last block: first → last step" in found.stdout
    assert "6 checkpoints measured; 14 results newly computed" in found.stdout
    record = json.loads(run(app, [*given, "--json"]).stdout)
    assert [one["run"] for one in record["representations"]] == ["one", "two"]
    for _ in ("computed", "recalled"):  # two kinds of places of the same checkpoints
        assert "6 checkpoints measured" in run(app, [*given, "--at", "block,mlp"]).stdout
    assert record["representations"][0]["steps"] == STEPS
    stage.change(5, lambda w: w * torch.nan)
    assert run(app, given).exit_code == 3
    assert run(app, [*given, "--strict"]).exit_code == 4
    with pytest.raises(WrongSettingError, match="--at"):
        run(app, [*given, "--at", "heads"], catch_exceptions=False, standalone_mode=False)


def test_every_column_is_explained_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "representations.md").read_text(encoding="utf-8")
    parts = ("_low", "_high", "_gaussian", "_from", "_to", "_error", "_r2")
    bare = {name for name in FEATURE_COLUMNS if not name.endswith(parts)}
    bare |= {name for name in SIMILARITY_COLUMNS if name.startswith(("cka_b", "svcca", "pwcca"))}
    for name in sorted(name.replace("_centred", "") for name in bare):
        if name.endswith(("_chance", "_first", "_second")):
            continue
        assert f"`{name}`" in page, name
