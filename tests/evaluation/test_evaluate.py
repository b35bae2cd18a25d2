"""A call after another computes what is new and no more, and no number is of anything else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import rankscope as rs
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from rankscope.evaluation import evaluate, model_engine, score_plans
from rankscope.evaluation.benchmark import benchmarks_of
from rankscope.evaluation.evaluate_question import EvaluateQuestion
from rankscope.evaluation.libraries import quiet_transformers
from rankscope.evaluation.score_files import PairScores, ScoreFile, read_scores
from rankscope.evaluation.score_plans import ScorePlans
from rankscope.pipeline import curves
from rankscope.pipeline.seen_files import TICK
from rankscope.results.columns import EVALUATION_RECORD, OWN
from rankscope.training.config_file import load_config
from rankscope.training.data.tokenizer import byte_tokenizer, train_bpe
from tests.evaluation.models import DOCUMENTS, write_hugging_face, write_own_run
from tests.scoring.agreement import PARADIGMS, good_sentences, write_agreement

WINDOW = 64
STEPS = [0, 3, 4, 6]
TEXT = [*DOCUMENTS, " ".join(good_sentences()[:12])]
Opened = list[tuple[str, int]]
Evaluate = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "run"
    return write_own_run(folder, batch__sequence_length=WINDOW, log__validation_tokens=128).path


@dataclass(frozen=True)
class Place:
    """A folder with a run, a text, minimal pairs and room for results."""

    run: Path
    text: Path
    pairs: Path
    out: Path

    def checkpoint(self, step: int) -> Path:
        return self.run / "checkpoints" / f"step-{step:08d}"

    def weights(self, step: int) -> Path:
        return self.checkpoint(step) / "model.safetensors"

    def files(self) -> dict[str, bytes]:
        """All that was written, but the record, which says when."""
        return {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in self.out.rglob("*")
            if path.is_file() and path.name != "evaluation.json"
        }

    def table(self) -> pd.DataFrame:
        return rs.open_results(self.out).evaluation


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Place:
    shutil.copytree(trained, tmp_path / "run")
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/MANIFEST.json"):
        manifest.unlink()  # what is changed here is changed on purpose
    text = tmp_path / "novel.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXT))
    pairs = write_agreement(tmp_path / "pairs")
    return Place(tmp_path / "run", text, pairs, tmp_path / "out")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Runs and steps of the models that are opened, as it happens."""
    found: Opened = []
    real = model_engine.open_text_model

    def open_text_model(checkpoint: Any, run: Any, *arguments: Any, **options: Any) -> Any:
        found.append((run.name, checkpoint.step))
        return real(checkpoint, run, *arguments, **options)

    monkeypatch.setattr(model_engine, "open_text_model", open_text_model)
    return found


@pytest.fixture
def both(place: Place) -> Evaluate:
    """Evaluate the run on text and pairs, into its results; keywords as they are given."""

    def call(**options: Any) -> pd.DataFrame:
        settings = {"text": place.text, "blimp": place.pairs, "out": place.out} | options
        return rs.evaluate(place.run, **settings)

    return call


def change_weights(place: Place, step: int, factor: float) -> None:
    path = place.weights(step)
    tensors = load_file(path)
    save_file({name: factor * tensor for name, tensor in tensors.items()}, path)


def values(table: pd.DataFrame, step: int) -> list[float]:
    return [float(value) for value in table.loc[table["step"] == step, "value"]]


@pytest.mark.slow
def test_a_second_call_opens_no_model_and_changes_no_file(
    place: Place, both: Evaluate, opened: Opened
) -> None:
    first = both(held_out=True)
    assert opened == [("run", step) for step in STEPS]
    before = place.files()
    opened.clear()
    assert_frame_equal(both(held_out=True), first)
    assert not opened and place.files() == before


@pytest.mark.slow
def test_only_a_new_checkpoint_is_scored(
    place: Place, both: Evaluate, opened: Opened, tmp_path: Path
) -> None:
    place.checkpoint(6).rename(tmp_path / "later")
    first = both()
    assert [step for _, step in opened] == [0, 3, 4]
    opened.clear()
    (tmp_path / "later").rename(place.checkpoint(6))
    second = both()
    assert opened == [("run", 6)]
    assert_frame_equal(second[second["step"] < 6].reset_index(drop=True), first)


@pytest.mark.slow
def test_only_a_changed_checkpoint_is_scored_again(
    place: Place, both: Evaluate, opened: Opened
) -> None:
    first = both()
    opened.clear()
    change_weights(place, 3, 1.5)
    second = both()
    assert opened == [("run", 3)]
    assert [step for step in STEPS if values(first, step) != values(second, step)] == [3]


def other_text(place: Place) -> dict[str, Any]:
    place.text.write_text(place.text.read_text().replace("cat", "rat"))
    return {}


def other_pairs(place: Place) -> dict[str, Any]:
    path = place.pairs / "own_subject_verb.jsonl"
    path.write_text(path.read_text().replace("pilot", "cook"))
    return {}


def other_tokenizer(place: Place) -> dict[str, Any]:
    path = place.run.parent / "other.json"
    tokenizer = train_bpe(DOCUMENTS * 3, 257)
    tokenizer.save(str(path))
    return {"tokenizer": path}


CHANGES: dict[str, Any] = {
    "window": {"window": 40},
    "stride": {"stride": 16},
    "both": {"window": 40, "stride": 16},
    "no-document-perplexity": {"document_perplexity": False},
    "max-documents": {"max_documents": 2},
    "pairs": {"pairs": 3},
    "leading-space": {"leading_space": True},
    "prefix": {"prefix": "none"},
    "another-prefix": {"prefix": "."},
    "precision": {"precision": "bfloat16"},
    "text": other_text,
    "sentences": other_pairs,
    "tokenizer": other_tokenizer,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.slow
def test_numbers_of_other_settings_are_kept_and_never_mixed(
    place: Place, both: Evaluate, opened: Opened, change: str
) -> None:
    steps = (3, 4, 1)
    first = both(steps=steps)
    kept = place.text.read_bytes(), (place.pairs / "own_subject_verb.jsonl").read_bytes()
    old, before = place.files(), len(opened)
    made = CHANGES[change]
    changed = both(steps=steps, **(made(place) if callable(made) else made))
    assert [step for _, step in opened[before:]] == [3, 4]
    assert set(zip(changed["task"], changed["step"], strict=True)) == set(
        zip(first["task"], first["step"], strict=True)
    )
    scores = {name: content for name, content in old.items() if name.startswith("scores/")}
    assert scores.items() <= place.files().items()
    assert_frame_equal(place.table(), changed)  # in place of the old numbers, not beside them

    place.text.write_bytes(kept[0])
    (place.pairs / "own_subject_verb.jsonl").write_bytes(kept[1])
    before = len(opened)
    assert_frame_equal(both(steps=steps), first)
    assert len(opened) == before
    assert old.items() <= place.files().items()


@pytest.mark.slow
def test_what_other_calls_wrote_stays(place: Place, opened: Opened) -> None:
    shutil.copytree(place.run, place.run.parent / "another")
    parts = [
        rs.evaluate(place.run, blimp=place.pairs, out=place.out),
        rs.evaluate(place.run, text=place.text, out=place.out),
        rs.evaluate(place.run.parent / "another", text=place.text, out=place.out),
    ]
    assert [set(part["task"]) for part in parts] == [{"blimp"}, {"novel"}, {"novel"}]
    key = ["run", "task", "step"]
    expected = pd.concat(parts).sort_values(key, kind="stable", ignore_index=True)
    assert_frame_equal(place.table(), expected)
    # In whichever order they are asked for, the files are the same.
    before = place.files()
    rs.evaluate(place.run, blimp=place.pairs, out=place.out)
    assert place.files() == before


def test_steps_not_asked_for_stay_and_are_not_returned(
    place: Place, both: Evaluate, opened: Opened
) -> None:
    whole = both()
    shutil.rmtree(place.checkpoint(4))  # a trainer may delete what it no longer needs
    asked = both(steps=(0, 3, 1))
    assert set(asked["step"]) == {0, 3}
    assert_frame_equal(place.table(), whole)


def test_a_text_of_two_names_is_not_recalled_for_the_other(place: Place) -> None:
    def losses(name: str, **settings: Any) -> list[float]:
        table = rs.evaluate(
            place.run, text=f"{name}={place.text}", steps=6, out=place.out, **settings
        )
        return values(table, 6)

    first = losses("a")
    other = losses("a", precision="bfloat16")
    assert losses("b") == first != other
    assert losses("a") == first


def test_a_run_that_is_skipped_has_no_numbers_of_other_settings(place: Place) -> None:
    another = place.run.parent / "another"
    shutil.copytree(place.run, another)
    tokenizer = (place.run / "tokenizer.json").rename(place.run.parent / "tokenizer.json")
    rs.evaluate(place.run, text=place.text, tokenizer=tokenizer, steps=6, out=place.out)
    records = []
    for _ in range(2):
        with pytest.warns(RankscopeWarning, match="no tokenizer"):
            table = rs.evaluate([place.run, another], text=place.text, steps=6, out=place.out)
        assert set(table["run"]) == {"another"}
        records.append((place.out / EVALUATION_RECORD).stat().st_mtime_ns)
    assert records[0] == records[1]  # nothing is new
    assert {path.name for path in place.out.iterdir()} <= OWN
    assert set(place.table()["run"]) == {"run", "another"}


def test_two_runs_of_one_name_never_share_a_curve(place: Place, both: Evaluate) -> None:
    both()
    elsewhere = place.run.parent / "elsewhere" / "run"
    shutil.copytree(place.run, elsewhere)
    (elsewhere / "checkpoints" / "step-00000006").rename(
        elsewhere / "checkpoints" / "step-00000007"
    )
    state = elsewhere / "checkpoints" / "step-00000007" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"step": 7}))
    found = rs.evaluate(
        elsewhere, text=place.text, blimp=place.pairs, out=place.out, steps=(7, 7, 1)
    )
    assert set(found["step"]) == set(place.table()["step"]) == {7}


@pytest.mark.parametrize("survive", [0, 1, 5])
@pytest.mark.slow
def test_a_kill_loses_the_scores_in_hand_alone(
    place: Place,
    both: Evaluate,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    survive: int,
) -> None:
    written = 0
    real = score_plans.write_scores

    def write(path: Path, file: ScoreFile) -> None:
        nonlocal written
        if written == survive:
            raise KeyboardInterrupt
        real(path, file)
        written += 1

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(score_plans, "write_scores", write)
        both()
    assert len(list(place.out.glob("scores/*/*/step-*"))) == survive
    opened.clear()
    table = both()
    assert [step for _, step in opened] == STEPS[survive // 2 :]
    assert set(zip(table["step"], table["task"], strict=True)) == {
        (step, task) for step in STEPS for task in ("blimp", "novel")
    }


def test_a_folder_that_cannot_be_written_is_found_at_once(
    place: Place, both: Evaluate, opened: Opened
) -> None:
    place.out.write_text("a file")
    with pytest.raises(WrongSettingError, match="is a file: `out` must be a folder"):
        both()
    assert not opened


def test_a_full_disk_is_an_error_of_writing(
    place: Place, both: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, file: ScoreFile) -> None:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(score_plans, "write_scores", write)
    with pytest.raises(OSError, match="No space left"):
        both()


@pytest.mark.parametrize("content", [b"", b"nothing", None], ids=["empty", "other", "cut"])
@pytest.mark.slow
def test_damaged_scores_are_computed_again_if_they_are_asked_for(
    place: Place, both: Evaluate, opened: Opened, content: bytes | None
) -> None:
    first, before = both(), place.files()
    damaged = next(place.out.glob("scores/run/novel-*/step-00000003.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] if content is None else content)
    opened.clear()
    with pytest.warns(UserWarning, match=r"step-00000003.safetensors: is damaged"):
        asked = rs.evaluate(place.run, blimp=place.pairs, out=place.out)
    assert not opened
    novel = place.table().query("task == 'novel'")
    assert set(asked["step"]) == set(STEPS) and set(novel["step"]) == {0, 4, 6}
    assert_frame_equal(both(), first)
    assert opened == [("run", 3)]
    assert place.files().keys() == before.keys()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"evaluations": 3}', '{"evaluations": [{"run": "run"}]}', "\xff"],
    ids=["empty", "cut", "list", "no-list", "number", "incomplete", "no-text"],
)
@pytest.mark.slow
def test_a_damaged_record_costs_no_scores(
    place: Place, both: Evaluate, opened: Opened, content: str
) -> None:
    first = both()
    (place.out / "evaluation.json").write_bytes(content.encode("latin-1"))
    opened.clear()
    assert_frame_equal(both(), first)
    assert not opened


@pytest.mark.parametrize("first_call", [False, True], ids=["new", "scored-before"])
@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_others_are_scored(
    place: Place, both: Evaluate, first_call: bool
) -> None:
    if first_call:
        both()
    place.weights(3).write_bytes(b"")
    with pytest.warns(UserWarning, match="1 skipped"):
        table = both()
    (skip,) = table.attrs["skipped"]
    assert skip["path"].startswith(str(place.checkpoint(3)))
    # Numbers of weights that are no longer there would be taken for those of what now is.
    assert set(table["step"]) == set(place.table()["step"]) == {0, 4, 6}


def test_a_model_of_nan_has_numbers_of_nan(place: Place, both: Evaluate, opened: Opened) -> None:
    change_weights(place, 6, float("nan"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="2 skipped"):
            table = both()
        assert {skip["reason"] for skip in table.attrs["skipped"]} == {"nonfinite"}
        assert {skip["path"] for skip in table.attrs["skipped"]} == {str(place.checkpoint(6))}
        numbers = table[table["metric"] != "ties"]
        assert numbers.loc[numbers["step"] == 6, ["value", "ci_low", "ci_high"]].isna().all().all()
        assert numbers.loc[numbers["step"] != 6, "value"].notna().all()
    assert len(opened) == len(STEPS)
    record = json.loads((place.out / "evaluation.json").read_text())
    last = {one["task"]: one["last"] for one in record["evaluations"]}
    assert last["novel"]["loss"]["value"] is None and last["blimp"]["accuracy"]["value"] is None


def test_where_nothing_can_be_evaluated_earlier_results_stay(place: Place, both: Evaluate) -> None:
    both()
    before = place.files()
    for step in STEPS:
        place.weights(step).write_bytes(b"")
    with pytest.raises(RankscopeError, match=r"no checkpoint could be .*step-00000000.* is empty"):
        both()
    after = place.files()
    skipped = after.pop("evaluation-skipped.jsonl").decode().splitlines()
    assert len(skipped) == len(STEPS)
    assert after.items() < before.items()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": "absent.txt"}, "matches nothing"),
        ({"text": "x=absent.txt"}, "matches nothing"),
        ({"blimp": "absent"}, "absent"),
        ({"window": 8, "stride": 9}, "`stride` is 9 tokens and `window` is 8"),
        ({"window": 0}, "`window` is 0 tokens"),
        ({"pairs": 0}, "`pairs` is 0"),
        ({"max_documents": 0}, "`max_documents` is 0"),
        ({"device": "tpu"}, "unknown name 'tpu' in `device`: choose from cpu, cuda"),
        ({"tokenizer": "absent.json"}, r"absent\.json: does not exist"),
        ({"steps": (5, 3, 1)}, "no checkpoint at the requested `steps`"),
        ({"steps": [1, 2]}, "available: run: steps 0, 3, 4, 6"),
        ({"steps": (0, 2, 0)}, "stride of `steps`"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_found_before_a_model_is_opened(
    both: Evaluate, opened: Opened, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(WrongSettingError, match=words) as caught:
        both(**options)
    assert not opened and "\n" not in str(caught.value)


def test_nothing_to_evaluate_on_is_an_error(place: Place) -> None:
    with pytest.raises(WrongSettingError, match="nothing to evaluate on"):
        rs.evaluate(place.run)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix": "nonsense"}, "no token and no id 'nonsense'"),
        ({"window": WINDOW + 1}, "takes at most 64 at once"),
        ({"stride": WINDOW + 1}, "`stride` is 65 tokens"),
    ],
    ids=["prefix", "window", "stride"],
)
def test_what_no_checkpoint_takes_is_told(
    both: Evaluate, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RankscopeError, match=words):
        both(blimp=None, **options)


def test_unreadable_text_is_named_once_and_opens_no_model(
    place: Place, both: Evaluate, opened: Opened
) -> None:
    place.text.write_bytes(b'{"text": "\xff\xfe"}\n')
    with pytest.raises(RankscopeError, match=r"1 skipped, the first: .*novel.jsonl"):
        both(blimp=None)
    assert not opened
    with pytest.warns(UserWarning, match="1 skipped"):
        assert set(both()["task"]) == {"blimp"}


@pytest.mark.slow
def test_a_run_without_held_out_text_is_skipped(place: Place, opened: Opened) -> None:
    folder = place.run.parent / "model"
    write_hugging_face(folder, "gpt2")
    with pytest.warns(UserWarning, match="1 skipped"):
        table = rs.evaluate([folder, place.run], held_out=True, out=place.out)
    assert set(table["run"]) == {"run"} and "model" not in {run for run, _ in opened}
    (skip,) = table.attrs["skipped"]
    assert skip["path"] == str(folder) and "config.toml" in skip["message"]
    with pytest.warns(UserWarning, match="1 skipped"):
        table = rs.evaluate([folder, place.run], held_out=True, text=place.text, out=place.out)
    assert set(zip(table["run"], table["task"], strict=True)) == {
        ("run", "held-out"),
        ("run", "novel"),
        ("model", "novel"),
    }


def test_weights_without_a_model_are_skipped(place: Place) -> None:
    weights = place.run.parent / "weights"
    weights.mkdir()
    np.savez(weights / "step-10.npz", **{"layers.0.q": np.eye(3)})
    with pytest.warns(UserWarning, match="1 skipped"):
        table = rs.evaluate([weights, place.run], text=place.text)
    assert [skip["reason"] for skip in table.attrs["skipped"]] == ["no-model"]
    assert set(table["run"]) == {"run"}


def float64_logits(checkpoint: Path) -> Callable[[list[int]], torch.Tensor]:
    """ln p of every next token, by transformers and peft in double precision."""
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float64)
        adapter = checkpoint / "adapter"
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    model = model.double().eval()

    def log_probabilities(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
        return logits.log_softmax(-1)

    return log_probabilities


def byte_ids(text: str) -> list[int]:
    """A text after the end of another, as the bytes tokenizer has both."""
    end = byte_tokenizer().token_to_id("<|endoftext|>")
    return [end, *text.encode()]


def test_perplexity_is_that_of_a_loop_with_transformers(place: Place) -> None:
    log_probabilities = float64_logits(place.checkpoint(6))
    total = tokens = 0.0
    for text in TEXT:
        ids = byte_ids(text)
        for start in range(0, len(ids) - 1, WINDOW):
            # Whatever the last tokens lack of a window is there before them.
            end = min(start + WINDOW, len(ids) - 1)
            first = max(0, end - WINDOW)
            found = log_probabilities(ids[first:end])
            for place_ in range(start, end):
                total -= float(found[place_ - first, ids[place_ + 1]])
                tokens += 1
    table = rs.evaluate(place.run, text=place.text, steps=(6, 6, 1)).set_index(["group", "metric"])
    assert table.loc[("all", "loss"), "value"] == pytest.approx(total / tokens, rel=1e-5)
    perplexity = table.loc[("all", "perplexity"), "value"]
    assert perplexity == pytest.approx(np.exp(total / tokens), rel=1e-4)
    assert table.loc[("all", "perplexity"), "n"] == len(TEXT)


@pytest.mark.slow
def test_choices_are_those_of_summed_log_probabilities_of_transformers(place: Place) -> None:
    log_probabilities = float64_logits(place.checkpoint(6))

    def likelihood(sentence: str) -> float:
        ids = byte_ids(sentence)
        found = log_probabilities(ids[:-1])
        return float(found[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum())

    expected = {
        uid: [likelihood(good) - likelihood(bad) for good, bad in iter_pairs()]
        for uid, (_, iter_pairs) in PARADIGMS.items()
    }
    table = rs.evaluate(place.run, blimp=place.pairs, out=place.out, steps=(6, 6, 1))
    (path,) = place.out.glob("scores/run/blimp-*/step-00000006.safetensors")
    scores = read_scores(path).scores
    assert isinstance(scores, PairScores)
    differences = np.concatenate([expected[paradigm.uid] for paradigm in scores.paradigms])
    np.testing.assert_allclose(scores.differences, differences, rtol=0, atol=1e-4)
    for uid, some in expected.items():
        (found,) = table.loc[table["group"] == f"uid:{uid}", "value"]
        assert found == pytest.approx(np.mean(np.array(some) > 0), abs=1e-12)


def settle() -> None:
    time.sleep(2 * TICK / 1e9)  # what is younger may change once more without a trace


@pytest.mark.slow
def test_with_nothing_new_only_states_of_files_are_read(
    place: Place, both: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys: list[object] = []
    real = curves.survey_here
    monkeypatch.setattr(curves, "survey_here", lambda *a, **k: surveys.append(a) or real(*a, **k))

    def has_surveyed(**options: Any) -> bool:
        surveys.clear()
        both(steps=iter([6]), **options)
        return bool(surveys)

    settle()
    first = both(steps=[6])
    assert not has_surveyed()
    assert_frame_equal(both(steps=[6]), first)
    changes: list[Callable[[], object]] = [
        lambda: place.text.write_text(place.text.read_text() + '{"text": "More."}\n'),
        next(place.pairs.iterdir()).unlink,
        lambda: change_weights(place, 6, 0.5),
    ]
    for change in changes:
        change()
        settle()
        assert has_surveyed()
        assert not has_surveyed()
    assert has_surveyed(pairs=3)
    assert has_surveyed()  # another question has been answered since


def test_data_that_change_once_their_digest_is_known_are_not_remembered(
    place: Place, both: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is scored that would notice: all scores are in the store."""
    both(steps=[6])
    real = evaluate.benchmarks_of

    def found_and_changed(question: EvaluateQuestion) -> Any:
        benchmarks = real(question)
        next(place.pairs.iterdir()).unlink()
        settle()
        return benchmarks

    monkeypatch.setattr(evaluate, "benchmarks_of", found_and_changed)
    monkeypatch.setattr("rankscope.evaluation.benchmark.PairsBenchmark.open", lambda self: None)
    settle()
    (place.out / "evaluation.csv").unlink()  # so that it is not recalled at once
    both(steps=[6])
    question = EvaluateQuestion(
        paths=(place.run,), text=(place.text,), blimp=place.pairs, steps=[6]
    )
    assert question.recalled(place.out) is None


def test_held_out_text_elsewhere_is_looked_at_where_its_digest_is_unknown(
    trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    question = EvaluateQuestion(paths=(run,), held_out=True)
    data = Path(load_config(run / "config.toml").data.source).parent

    def folders() -> set[str]:
        plans = ScorePlans(question.survey(), benchmarks_of(question), question.options(), None)
        assert all(plan.tasks for plan in plans)
        return plans.folders

    assert str(data) not in folders()
    environment = json.loads((run / "environment.json").read_text())
    del environment["data_blake2b"]
    (run / "environment.json").write_text(json.dumps(environment))
    assert str(data) in folders()


def test_with_nothing_new_no_pairs_are_read(
    place: Place, both: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle()
    first = both(held_out=True)
    record = (place.out / "evaluation.json").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was read or written")

    monkeypatch.setattr("rankscope.evaluation.benchmark.read_blimp", refuse)
    monkeypatch.setattr("rankscope.evaluation.model_engine.open_text_model", refuse)
    monkeypatch.setattr("rankscope.evaluation.evaluation_folder.write_with_record", refuse)
    assert_frame_equal(both(held_out=True), first)
    assert (place.out / "evaluation.json").read_bytes() == record


@pytest.mark.parametrize("name", ["evaluation.parquet", "evaluation.csv", "a file of scores"])
@pytest.mark.slow
def test_a_lost_or_emptied_file_is_written_again(place: Place, both: Evaluate, name: str) -> None:
    both(steps=6)
    before = place.files()
    path = place.out / name
    if name == "a file of scores":
        next(place.out.glob("scores/run/novel-*/*")).unlink()
    else:
        path.write_bytes(b"")
    both(steps=6)
    assert place.files().keys() == before.keys()
    tables = {name for name in before if name.startswith("evaluation.")}
    assert {name: place.files()[name] for name in tables} == {name: before[name] for name in tables}


def test_a_checkpoint_that_changes_meanwhile_has_no_numbers(
    place: Place, both: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = model_engine.open_text_model

    def open_text_model(checkpoint: Any, *arguments: Any, **options: Any) -> Any:
        model = real(checkpoint, *arguments, **options)
        if checkpoint.step == 3:
            change_weights(place, 3, 2.0)
        return model

    with monkeypatch.context() as patch, pytest.warns(RankscopeWarning, match="1 skipped"):
        patch.setattr(model_engine, "open_text_model", open_text_model)
        table = both(blimp=None)
    assert set(table["step"]) == {0, 4, 6}
    assert table.attrs["skipped"][0]["reason"] == "changed-while-reading"
    assert set(both(blimp=None)["step"]) == set(STEPS)


def test_what_was_met_with_the_runs_is_said(place: Place, both: Evaluate) -> None:
    copy = place.run / "checkpoints" / "Copy of step-00000006"
    shutil.copytree(place.checkpoint(6), copy)
    for _ in range(2):  # recalled the second time
        table = both(steps=6, blimp=None)
        assert [note["path"] for note in table.attrs["notes"]] == [str(copy)]
