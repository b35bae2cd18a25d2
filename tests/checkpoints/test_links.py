"""Links in a checkpoint lead within the folder given, or into a cache of the hub, or nowhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rankscope.checkpoints.discovery import open_run, open_runs
from rankscope.checkpoints.links import is_below, leads_out
from rankscope.errors import RankscopeError
from tests.reliability.bad_configs import with_adapter
from tests.reliability.spoiled_run import honest, link_to, model, replaced, weights, write_step


def read(run: Path, step: int) -> set[str]:
    """The names of the matrices of a step, all of which are read."""
    parameters = open_run(run)[step].contents.parameters.values()
    return {one.name for one in parameters if one.tensor is not None and one.tensor.read().any()}


def test_the_folder_given_may_be_a_link(tmp_path: Path) -> None:
    run = honest(tmp_path / "disk" / "run")
    (tmp_path / "link").symlink_to(run)
    assert read(tmp_path / "link", 2) == set(weights(2))


def test_a_folder_beside_is_not_within_whatever_its_name_begins_with(tmp_path: Path) -> None:
    for name in ("run", "run-2"):
        (tmp_path / name).mkdir()
    assert leads_out(tmp_path / "run-2", tmp_path / "run")
    assert not is_below(tmp_path / "run" / ".." / "run-2", tmp_path / "run")
    assert is_below(tmp_path / "run" / "x", tmp_path / "run") and is_below("/x", Path("/"))


def test_a_link_is_followed_within_the_folder_given(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    honest(tree / "one")
    two = honest(tree / "two")
    replaced(two, "model.safetensors", link_to("../../one/checkpoint-1/model.safetensors"))
    runs = {run.name: run for run in open_runs([tree])}
    assert set(runs["two"][2].contents.parameters) == set(weights(1))
    with pytest.raises(RankscopeError, match="leads out of the folder given") as refused:
        read(two, 2)
    assert (refused.value.reason, refused.value.path) == ("outside", str(model(two)))


@pytest.mark.parametrize("name", ["config.json", "adapter/adapter_config.json"])
def test_any_file_that_is_read_is_refused_outside(tmp_path: Path, name: str) -> None:
    run = honest(tmp_path / "run")
    (tmp_path / "file").write_text("{}")
    (run / "checkpoint-2" / name).parent.mkdir(exist_ok=True)
    replaced(run, name, link_to(tmp_path / "file"))
    with pytest.raises(RankscopeError) as refused:
        read(run, 2)
    assert refused.value.reason == "outside"


def test_a_base_beside_the_checkpoint_is_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = honest(tmp_path / "run")
    adapter = tmp_path / "adapter"
    with_adapter(run)
    (run / "checkpoint-2" / "adapter").rename(adapter)
    monkeypatch.chdir(adapter)
    (checkpoint,) = open_run(".", base="../run/checkpoint-1")
    assert set(checkpoint.contents.parameters) == set(weights(1))


def test_what_is_not_read_may_lead_anywhere(tmp_path: Path) -> None:
    run = honest(tmp_path / "run")
    replaced(run, "optimizer.pt", link_to("/etc/passwd"))
    assert read(run, 2) == set(weights(2))


@pytest.mark.parametrize("given", ["", "snapshots/abc", "run"])
def test_files_of_a_cache_of_the_hub_are_links(tmp_path: Path, given: str) -> None:
    """Of a model, of a snapshot, and of a folder of links into the cache."""
    cache = tmp_path / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    write_step(tmp_path / "files", 1)
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        shutil.move(tmp_path / "files" / name, cache / "blobs" / f"hash-{name}")
        (snapshot / name).symlink_to(f"../../blobs/hash-{name}")
    run = honest(tmp_path / "run")
    replaced(run, "model.safetensors", link_to(cache / "blobs" / "hash-model.safetensors"))
    root = run if given == "run" else cache / given
    opened = next(one for one in open_run(root) if given != "run" or one.step == 2)
    assert set(opened.contents.parameters) == set(weights(1))
