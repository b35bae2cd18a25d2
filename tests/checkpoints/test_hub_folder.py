"""Models in the cache of the hub: their branches, steps and snapshots."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rankscope.checkpoints import hub_folder
from rankscope.checkpoints.discovery import open_run, open_runs, survey
from rankscope.checkpoints.same_weights import identical_steps
from rankscope.errors import RankscopeError
from tests.conftest import CONFIG, Tensors, random_weights

NAME = "EleutherAI/pythia-14m"
FOLDER = "models--EleutherAI--pythia-14m"


def commit_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def add_snapshot(model: Path, commit: str, files: dict[str, bytes]) -> Path:
    """Put files into a cache as its own tools do: blobs by hash, and links to them."""
    snapshot = model / "snapshots" / commit
    for name, data in files.items():
        blob = model / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        above = "/".join([".."] * (2 + name.count("/")))
        (snapshot / name).symlink_to(f"{above}/blobs/{blob.name}")
    return snapshot


def add_branch(model: Path, branch: str, commit: str) -> None:
    (model / "refs" / branch).parent.mkdir(parents=True, exist_ok=True)
    (model / "refs" / branch).write_text(commit)


def model_files(tensors: Tensors) -> dict[str, bytes]:
    return {"model.safetensors": save(tensors), "config.json": json.dumps(CONFIG).encode()}


def add_model(model: Path, tensors: Tensors, *branches: str) -> Path:
    """Add a snapshot of a model under some branches."""
    commit = commit_of(repr(branches))
    for branch in branches:
        add_branch(model, branch, commit)
    return add_snapshot(model, commit, model_files(tensors))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which the environment names."""
    for variable in ("HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub" / ".locks").mkdir(parents=True)
    (tmp_path / "hub" / "version.txt").write_text("1")
    return tmp_path / "hub"


@pytest.fixture
def pythia(hub: Path, rng: np.random.Generator) -> dict[int, Tensors]:
    """Steps of a model in the cache, each a branch; ``main`` is the last step once more."""
    weights = {step: random_weights(rng) for step in (0, 512, 1000, 143000)}
    for step in (0, 512, 1000):
        add_model(hub / FOLDER, weights[step], f"step{step}")
    add_model(hub / FOLDER, weights[143000], "main", "step143000")
    return weights


def test_the_steps_of_a_model_are_its_branches(hub: Path, pythia: dict[int, Tensors]) -> None:
    run = open_run(hub / FOLDER)
    assert (run.name, run.steps) == (NAME, (0, 512, 1000, 143000))
    assert {c.step_source for c in run} == {"branch"}
    assert {c.layout for c in run} == {"huggingface"}
    for step, tensors in pythia.items():
        for parameter in run[step].contents.parameters.values():
            assert parameter.tensor is not None
            assert (parameter.tensor.read() == tensors[parameter.tensor.name]).all()


@pytest.mark.parametrize("place", ["", FOLDER, f"{FOLDER}/snapshots"])
def test_a_cache_and_the_folders_in_it_open(
    place: str, hub: Path, pythia: dict[int, Tensors]
) -> None:
    run = open_run(hub / place)
    assert (run.name, run.steps) == (NAME, tuple(pythia))


def test_a_cache_of_several_models_holds_a_run_for_each(
    hub: Path, pythia: dict[int, Tensors], rng: np.random.Generator
) -> None:
    add_model(hub / "models--gpt2", random_weights(rng), "main")
    add_snapshot(hub / "datasets--x--y", "1" * 40, {"data/train-00000-of-00001.parquet": b"PAR1"})
    add_branch(hub / "datasets--x--y", "main", "1" * 40)
    runs = open_runs([hub.parent])
    assert [(run.name, run.steps) for run in runs] == [(NAME, tuple(pythia)), ("gpt2", (0,))]
    assert runs[1].checkpoints[0].step_source == "order"


def test_a_snapshot_knows_its_step(
    hub: Path, pythia: dict[int, Tensors], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub / FOLDER / "snapshots" / commit_of("('step512',)")
    assert (open_run(snapshot).name, open_run(snapshot).steps) == (NAME, (512,))
    monkeypatch.chdir(snapshot)
    assert open_run(".").steps == (512,)
    other = hub / FOLDER / "snapshots" / commit_of("('step1000',)")
    two = open_runs([snapshot, other])
    assert len({run.name for run in two}) == 2
    assert [run.steps for run in two] == [(512,), (1000,)]


def test_a_name_opens_from_the_cache_unless_it_is_a_folder(
    hub: Path, pythia: dict[int, Tensors], rng: np.random.Generator
) -> None:
    assert open_run(NAME).steps == tuple(pythia)
    Path(NAME).mkdir(parents=True)
    with pytest.raises(RankscopeError, match="holds no checkpoint"):
        open_run(NAME)


@pytest.mark.parametrize("name", ["EleutherAI/absent", "gpt2", "a/b/c", "../hub", "./x", "/a/b"])
def test_neither_a_path_nor_a_cached_name_is_refused(
    name: str, hub: Path, pythia: dict[int, Tensors]
) -> None:
    with pytest.raises(RankscopeError, match="does not exist" if name != "../hub" else "hub"):
        open_run(name)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "HF_HUB_CACHE": ""}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
        ({"HOME": "/d", "HF_HOME": "~/e"}, "/d/e/hub"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    variables: dict[str, str], folder: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_folder.cache_folder() == Path(folder)


def test_main_counts_only_where_no_branch_states_a_step(
    hub: Path, rng: np.random.Generator
) -> None:
    add_model(hub / FOLDER, random_weights(rng), "main")
    assert [(run.name, run.steps) for run in open_runs([NAME])] == [(NAME, (0,))]
    add_model(hub / FOLDER, random_weights(rng), "step1000")
    found = survey([NAME])
    assert [(run.name, run.steps) for run in found.runs] == [(NAME, (1000,))]
    (note,) = found.notes
    assert "is left out: it is not on a branch whose name states a step" in note.message


def test_two_steps_of_one_commit_hold_the_same_weights(
    hub: Path, pythia: dict[int, Tensors]
) -> None:
    assert identical_steps(open_run(NAME)) == []
    add_branch(hub / FOLDER, "step3000", commit_of("('main', 'step143000')"))
    add_model(hub / FOLDER, pythia[1000], "step4000")
    run = open_run(NAME)
    assert run.steps == (0, 512, 1000, 3000, 4000, 143000)
    assert identical_steps(run) == [(1000, 4000), (3000, 143000)]


def test_snapshots_that_share_a_blob_are_not_read(
    hub: Path, pythia: dict[int, Tensors], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(hub / FOLDER, pythia[1000], "step2000")
    digests = []
    digest = "rankscope.checkpoints.same_weights._digest"
    monkeypatch.setattr(digest, lambda contents: str(digests.append(0) or len(digests)))
    assert identical_steps(open_run(NAME)) == [(1000, 2000)]
    assert len(digests) == len(pythia)


def test_stages_are_runs_of_their_own(hub: Path, rng: np.random.Generator) -> None:
    for branch in (
        "main", "stage1-step1000-tokens4B", "stage1-step140000-tokens294B",
        "stage2-ingredient1-step1000-tokens5B", "stage2-ingredient2-step1000-tokens5B",
    ):  # fmt: skip
        add_model(hub / "models--allenai--OLMo-2", random_weights(rng), branch)
    runs = open_runs(["allenai/OLMo-2"])
    assert [(run.name, run.steps) for run in runs] == [
        ("allenai/OLMo-2/stage1", (1000, 140000)),
        ("allenai/OLMo-2/stage2-ingredient1", (1000,)),
        ("allenai/OLMo-2/stage2-ingredient2", (1000,)),
    ]
    assert [c.tokens for c in runs[0]] == [4 * 10**9, 294 * 10**9]


def test_what_is_broken_is_passed_over_and_the_rest_opens(
    hub: Path, pythia: dict[int, Tensors], rng: np.random.Generator
) -> None:
    model = hub / FOLDER
    add_branch(model, "step7", "f" * 40)  # its snapshot is not there
    add_branch(model, "step8", "../../outside")
    (model / "refs" / "step9").write_bytes(b"\xff" * 9000)
    (model / "refs" / "step10").symlink_to("nowhere")
    add_branch(model, "empty", "")
    add_branch(model, "refs/pr/1", commit_of("('step0',)"))
    broken = add_model(model, random_weights(rng), "step2000")
    (broken / "model.safetensors").resolve().unlink()
    (model / "snapshots" / "stray.txt").write_text("x")
    add_branch(model, "step512", commit_of("('step512',)") + "\n")
    run = open_run(NAME)
    assert run.steps == tuple(sorted((*pythia, 2000)))
    with pytest.raises(RankscopeError, match="is neither a file nor a link to one"):
        run[2000].read()


def test_without_branches_the_files_of_a_snapshot_tell_the_step(
    hub: Path, rng: np.random.Generator
) -> None:
    model = hub / FOLDER
    for step in (20, 3):
        state = {"trainer_state.json": json.dumps({"global_step": step}).encode()}
        files = model_files(random_weights(rng)) | state
        add_snapshot(model, commit_of(f"{step}"), files)
    run = open_run(NAME)
    assert (run.name, run.steps) == (NAME, (3, 20))
    assert {c.step_source for c in run} == {"trainer_state.json"}
    add_model(model, random_weights(rng), "step20")  # the branch was moved to a new commit
    add_snapshot(model, "2" * 40, model_files(random_weights(rng)))
    run = open_run(NAME)
    assert [(c.step, c.step_source) for c in run] == [(3, "trainer_state.json"), (20, "branch")]


def test_without_steps_every_snapshot_is_a_run(hub: Path, rng: np.random.Generator) -> None:
    for digit in "12":
        add_snapshot(hub / FOLDER, digit * 40, model_files(random_weights(rng)))
    assert [run.name for run in open_runs([NAME])] == [f"{NAME}@{'1' * 12}", f"{NAME}@{'2' * 12}"]
    add_model(hub / FOLDER, random_weights(rng), "main")
    assert [run.name for run in open_runs([NAME])] == [NAME]
    add_model(hub / FOLDER, random_weights(rng), "half")
    assert sorted(run.name for run in open_runs([NAME])) == [NAME, f"{NAME}@half"]


def test_a_branch_for_each_run_keeps_the_runs_apart(hub: Path, rng: np.random.Generator) -> None:
    model = hub / "models--pico-lm--demo"
    for branch in ("pico-decoder-small-1", "pico-decoder-small-2"):
        state = {"trainer_state.json": json.dumps({"global_step": 100}).encode()}
        add_snapshot(model, commit_of(branch), model_files(random_weights(rng)) | state)
        add_branch(model, branch, commit_of(branch))
    assert [(run.name, run.steps) for run in open_runs(["pico-lm/demo"])] == [
        ("pico-lm/demo/pico-decoder-small-1", (100,)),
        ("pico-lm/demo/pico-decoder-small-2", (100,)),
    ]


def test_checkpoints_in_the_folders_of_a_snapshot_are_found(
    hub: Path, rng: np.random.Generator
) -> None:
    files = {
        f"checkpoint-{step}/{name}": data
        for step in (5, 10)
        for name, data in model_files(random_weights(rng)).items()
    }
    snapshot = add_snapshot(hub / FOLDER, "3" * 40, files)
    for path in (NAME, snapshot):
        run = open_run(path)
        assert (run.name, run.steps) == (f"{NAME}@{'3' * 12}", (5, 10))
    assert open_run(snapshot / "checkpoint-5").steps == (5,)


def test_a_cache_without_weights_says_so(hub: Path) -> None:
    add_branch(hub / FOLDER, "main", "1" * 40)
    add_snapshot(hub / FOLDER, "1" * 40, {"config.json": b"{}"})
    with pytest.raises(RankscopeError, match="pythia-14m: holds no checkpoint"):
        open_run(NAME)
