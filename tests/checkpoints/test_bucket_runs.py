"""Runs in buckets: on fsspec's file system in memory, and on a server of S3's interface."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import rankscope as rs
from rankscope.checkpoints.remote.bucket_source import BucketSource
from rankscope.checkpoints.remote.ledger import fetched
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from tests.checkpoints.test_remote_runs import NAME, large_weights, q_of
from tests.conftest import CONFIG

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory(cache: Path) -> Iterator[Any]:
    """A bucket with a run of two steps, in the memory of this process."""
    files = fsspec.filesystem("memory")
    fill(files, "/bucket/run")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def fill(files: Any, below: str) -> None:
    for step in (5, 10):
        folder = f"{below}/checkpoint-{step}"
        files.pipe_file(f"{folder}/model.safetensors", save(large_weights(step)))
        files.pipe_file(f"{folder}/config.json", json.dumps(CONFIG).encode())


def test_a_run_in_a_bucket_is_read_by_ranges(memory: Any) -> None:
    run = rs.open_run("memory://bucket/run")
    assert (run.name, run.steps) == ("run", (5, 10))
    np.testing.assert_array_equal(q_of(run, 10), large_weights(10)[NAME])
    assert 0 < fetched().size < memory.size("/bucket/run/checkpoint-10/model.safetensors")


def test_an_object_that_changed_meanwhile_is_refused(memory: Any) -> None:
    run = rs.open_run("memory://bucket/run")
    tensor = run[10].contents.parameters[NAME].tensor
    memory.pipe_file("/bucket/run/checkpoint-10/model.safetensors", save(large_weights(11)))
    assert tensor is not None
    with pytest.raises(RankscopeError) as caught:
        tensor.read()
    assert caught.value.reason == "changed-while-reading"
    assert caught.value.path == "memory://bucket/run/checkpoint-10/model.safetensors"
    np.testing.assert_array_equal(
        q_of(rs.open_run("memory://bucket/run"), 10), large_weights(11)[NAME]
    )


def test_one_object_is_a_run_of_one_step(memory: Any) -> None:
    memory.pipe_file("/bucket/step-7.safetensors", save(large_weights(7)))
    run = rs.open_run("memory://bucket/step-7.safetensors")
    np.testing.assert_array_equal(q_of(run, 7), large_weights(7)[NAME])


def test_what_is_not_there_is_wrong_use_and_what_goes_is_a_skip(memory: Any) -> None:
    with pytest.raises(WrongSettingError, match="not there"):
        rs.open_run("memory://bucket/absent")
    run = rs.open_run("memory://bucket/run")
    tensor = run[10].contents.parameters[NAME].tensor
    memory.rm("/bucket/run/checkpoint-10/model.safetensors")
    with pytest.raises(RankscopeError) as caught:
        assert tensor is not None
        tensor.read()
    assert caught.value.reason == "missing"


def test_names_that_no_file_can_have_are_left_out_and_named(memory: Any) -> None:
    listing = BucketSource("memory").listed("bucket/run")[0]
    one = next(iter(listing.values()))
    odd = dict.fromkeys(["a/../../../evil", "x" * 300, "a//b"], one)
    odd["large"] = replace(one, size=2**60)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.warns(RankscopeWarning, match="4 objects of memory://bucket/run"),
    ):
        patch.setattr(BucketSource, "listed", lambda *_: ({**listing, **odd}, False))
        assert rs.open_run("memory://bucket/run").steps == (5, 10)


@pytest.mark.parametrize(
    ("error", "reason", "attempts"),
    [
        (PermissionError("Access Denied"), "permission", 1),
        (type("NoCredentialsError", (Exception,), {})("none"), "permission", 1),
        (OSError("Please reduce your request rate"), "connection", 5),
        (TimeoutError("read timed out"), "connection", 5),
    ],
)
def test_only_what_is_transient_is_tried_again(
    memory: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, attempts: int
) -> None:
    calls = []

    def failing(*_: Any, **__: Any) -> Any:
        calls.append(1)
        raise error

    monkeypatch.setattr(type(memory), "find", failing)
    with pytest.raises(RankscopeError) as caught:
        rs.open_run("memory://bucket/run")
    assert (caught.value.reason, len(calls)) == (reason, attempts)
    assert "memory://bucket/run" in str(caught.value)


@pytest.mark.parametrize("package", ["fsspec", "s3fs"])
def test_a_missing_package_is_named_with_how_to_install_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    with pytest.raises(WrongSettingError, match=r'pip install "rankscope\[remote\]" s3fs'):
        rs.open_run("s3://bucket/run")


@pytest.fixture
def s3(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server of S3's interface on the loopback, with a bucket."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    files = fsspec.filesystem("s3")
    files.mkdir("bucket")
    yield files
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its packages
def test_a_bucket_of_s3_is_read_by_ranges_and_its_changes_are_seen(s3: Any) -> None:
    fill(s3, "bucket/run")
    run = rs.open_run("s3://bucket/run")
    assert run.steps == (5, 10)
    np.testing.assert_array_equal(q_of(run, 10), large_weights(10)[NAME])
    tensor = run[5].contents.parameters[NAME].tensor
    s3.pipe_file("bucket/run/checkpoint-5/model.safetensors", save(large_weights(6)))
    assert tensor is not None
    with pytest.raises(RankscopeError) as caught:
        tensor.read()
    assert caught.value.reason == "changed-while-reading"
    with pytest.raises(WrongSettingError):
        rs.open_run("s3://bucket/absent")
    table = rs.analyze("s3://bucket/run", jobs=1, components=["weight"])  # in another process
    assert set(table["step"]) == {5, 10} and (table["status"] == "ok").all()


def test_a_package_that_tries_again_itself_is_asked_once_and_prints_nothing(
    memory: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = []

    class Stubborn(type(memory)):  # type: ignore[misc]
        def find(self, *_: Any, **__: Any) -> Any:
            calls.append(1)
            logging.getLogger("gcsfs").error("_request out of retries")
            raise OSError("Cannot connect to host storage.googleapis.com")

    monkeypatch.setattr(fsspec, "filesystem", lambda _: Stubborn())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    with pytest.raises(RankscopeError, match=r"Cannot connect.*attempts: 1"):
        rs.open_run("gs://bucket/run")
    assert len(calls) == 1
    assert capfd.readouterr().err == ""
