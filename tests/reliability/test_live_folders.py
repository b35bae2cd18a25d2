"""What is complete is measured, what is not is named, and the next call finds it.

Somebody else writes, rotates or overwrites checkpoints while they are read.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from typer.testing import CliRunner

from rankscope.analysis import history
from rankscope.cli.app import app
from rankscope.errors import RankscopeError
from tests.analysis.series import Inline
from tests.analysis.test_changed_files import CHANGED, Disturbed, steps_of, turned
from tests.analysis.test_changed_files import analysis as analysis_by
from tests.reliability.killing import forked
from tests.reliability.kills import series, tables
from tests.reliability.live import (
    INDEX,
    Files,
    analysis,
    checkpoint,
    moments,
    put,
    vanishing,
    wrong,
)
from tests.watching.test_watch import Clock, assert_same_tables, clock, seen, watch

__all__ = ["clock"]  # a fixture
WEIGHTS = "model.safetensors"


class Live:
    """A run with one complete checkpoint and one that is being written."""

    def __init__(self, folder: Path, files: Files) -> None:
        self.folder, self.files, self.trials = folder, files, 0
        self.run, self.live = folder / "run", folder / "run" / "checkpoint-20"
        put(self.run / "checkpoint-10", checkpoint(10, shards=1, seed=1))
        put(self.live, files)
        found = analysis(self.run, folder / "whole")
        assert found is not None and not found.skips
        self.rows, self.tables = found.rows, tables(folder / "whole")

    def faults(self, files: Files) -> list[str]:
        """What is wrong with an analysis at this moment, and with `inspect`; and of the next."""
        self.trials += 1
        put(self.live, files)
        out = self.folder / f"out-{self.trials}"
        found = analysis(self.run, out)
        faults = ["refused"] if found is None else wrong(found, self.rows, self.live)
        shown = CliRunner().invoke(app, ["inspect", str(self.run)])
        if shown.exit_code not in (0, 3):
            faults.append(f"inspect: {shown.exception!r}")
        put(self.live, self.files)
        analysis(self.run, out)
        return faults if tables(out) == self.tables else [*faults, "the next call differs"]


def faults_at_every_moment(live: Live, order: Sequence[str]) -> Iterator[str]:
    rotated = list(vanishing(live.files, order))[:-1]  # an empty folder says nothing
    for what, files in (*moments(live.files, order), *rotated):
        yield from (f"{what}: {fault}" for fault in live.faults(files))


def test_a_checkpoint_in_one_file_at_every_moment(tmp_path: Path) -> None:
    files = checkpoint(20, shards=1, seed=2)
    assert list(faults_at_every_moment(Live(tmp_path, files), list(files))) == []


@pytest.mark.parametrize("first", [None, INDEX, "trainer_state.json"])
@pytest.mark.slow
def test_a_checkpoint_in_shards_at_every_moment(tmp_path: Path, first: str | None) -> None:
    """The index comes after its shards, as transformers writes it, or before them."""
    files = checkpoint(20, shards=2, seed=2)
    order = sorted(files, key=lambda name: name != first)
    assert list(faults_at_every_moment(Live(tmp_path, files), order)) == []


@pytest.mark.parametrize("is_safe", [True, False])
@pytest.mark.slow
def test_what_transformers_writes_at_every_moment(tmp_path: Path, is_safe: bool) -> None:
    """In its own order: shards and their index, or what `torch.save` makes of the weights."""
    import torch
    import transformers

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=4, num_key_value_heads=2, vocab_size=20
    )
    written = tmp_path / "written"
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(written, max_shard_size="6KB")
    if not is_safe:
        for path in written.glob("model*"):
            path.unlink()
        torch.save(model.state_dict(), written / "pytorch_model.bin")
    (written / "trainer_state.json").write_text(json.dumps({"global_step": 20}))
    paths = sorted(written.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) > 4 or not is_safe
    run, live = tmp_path / "run", tmp_path / "run" / "checkpoint-20"
    files = {path.name: path.read_bytes() for path in paths}
    put(run / "checkpoint-10", {name: files[name] for name in files if name[0] in "cmp"})
    put(live, files)
    whole = analysis(run, tmp_path / "whole")
    assert whole is not None and len(whole.rows) == 2 * 14 + 14
    for n, (what, some) in enumerate(moments(files, list(files))):
        put(live, some)
        found = analysis(run, tmp_path / f"out-{n}")
        assert found is not None and wrong(found, whole.rows, live) == [], what


def test_watching_ends_right_however_slow_the_writer_is(tmp_path: Path, clock: Clock) -> None:
    """Meanwhile nothing is skipped but what it has not finished."""
    run, files = tmp_path / "run", checkpoint(20, shards=2, seed=2)
    live = run / "checkpoint-20"
    put(run / "checkpoint-10", checkpoint(10, shards=1, seed=1))

    def check(files: Files) -> None:
        lines = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
        assert all(Path(json.loads(line)["path"]).is_relative_to(live) for line in lines)
        put(live, files)

    clock.events = [None]
    for _, some in moments(files, list(files)):
        clock.events += [partial(check, some), None, None]
    assert ("run", 20) in seen(watch(run, out=tmp_path / "out"))
    assert_same_tables(tmp_path / "out", run, tmp_path / "other")


def cut(path: Path) -> None:
    """Cut a file short in place, after its header and the first bytes of its data."""
    os.truncate(path, 1000)


def test_a_file_that_shrinks_under_the_reader_is_a_skip(tmp_path: Path) -> None:
    """And the end of a process that maps files into memory, which is why none here does."""
    run = series(tmp_path)
    path = run / "checkpoint-2" / WEIGHTS

    def mapped() -> None:
        faulthandler.disable()  # so that its end, which is expected, is no report among tests
        values = np.memmap(path, np.uint8, "r")
        cut(path)
        np.asarray(values).sum()

    def read() -> None:
        disturbed = Disturbed(Inline(), partial(cut, path), when="planned")
        found = analysis_by(run, tmp_path / "out", disturbed, "weight")
        assert steps_of(found, "ok") == {("weight", 1), ("weight", 3)}
        assert {skip.path for skip in found.skips} == {str(path)}

    whole = path.read_bytes()
    path.write_bytes(whole + bytes(10_000))
    assert forked(mapped).ended().code == -signal.SIGBUS
    path.write_bytes(whole)
    ended = forked(read).ended()
    assert ended.code == 0, ended.said


def test_a_model_that_shrinks_is_refused_in_words(tmp_path: Path) -> None:
    from rankscope.training.run_folder.trained_model import trained_model

    folder = series(tmp_path) / "checkpoint-1"
    cut(folder / WEIGHTS)
    with pytest.raises(RankscopeError, match="is not a complete checkpoint"):
        trained_model(folder)


@pytest.mark.parametrize("when", ["planned", "read"])
def test_a_file_whose_time_is_set_back_was_changed_all_the_same(tmp_path: Path, when: str) -> None:
    run = series(tmp_path)
    path = run / "checkpoint-2" / WEIGHTS

    def rewrite() -> None:
        before = path.stat()
        turned(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat()[:1] + path.stat()[6:9] == before[:1] + before[6:9]

    found = analysis_by(run, tmp_path / "out", Disturbed(Inline(), rewrite, when=when), "weight")
    assert steps_of(found, f"skipped:{CHANGED}") == {("weight", 2)}


def test_a_header_holds_only_for_the_file_that_it_was_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is rewritten as soon as its header was read has its tensors elsewhere."""
    run, real = series(tmp_path), history._Walk._read

    def read(walk: history._Walk, one: history.Checkpoint) -> object:
        contents = real(walk, one)
        if one.step == 2:
            turned(one.path / WEIGHTS)
        return contents

    monkeypatch.setattr(history._Walk, "_read", read)
    found = analysis_by(run, tmp_path / "out", Inline(), "weight")
    assert steps_of(found, f"skipped:{CHANGED}") == {("weight", 2)}


@pytest.mark.parametrize("when", ["begun", "planned"])
def test_a_checkpoint_that_is_removed_meanwhile_costs_itself(tmp_path: Path, when: str) -> None:
    """As ``save_total_limit`` does."""
    run = series(tmp_path)
    gone = run / "checkpoint-1"
    disturbed = Disturbed(Inline(), partial(shutil.rmtree, gone), when=when)
    found = analysis_by(run, tmp_path / "out", disturbed, "weight")
    assert steps_of(found, "ok") == {("weight", 2), ("weight", 3)}
    assert found.skips and all(Path(skip.path).is_relative_to(gone) for skip in found.skips)


def rewriting(path: Path, contents: Sequence[bytes], rng: random.Random) -> None:
    """Write a file again and again: in place, in pieces, under another name, or after removal."""
    while True:
        content = rng.choice(contents)
        way = rng.choice(["in place", "in pieces", "renamed", "removed"])
        if way == "renamed":
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").rename(path)
        else:
            if way == "removed":
                path.unlink()
            with path.open("wb") as file:
                for start in range(0, len(content), 1500 if way == "in pieces" else len(content)):
                    file.write(content[start : start + 1500 if way == "in pieces" else None])
                    file.flush()
                    time.sleep(0.002 if way == "in pieces" else 0)
        time.sleep(rng.random() / 50)


@pytest.mark.parametrize("trials", [25])
@pytest.mark.slow
def test_no_number_is_of_two_versions_of_a_file(tmp_path: Path, trials: int) -> None:
    """While a program rewrites it all the time, in either of two orders of its tensors."""
    run = series(tmp_path)
    path = run / "checkpoint-3" / WEIGHTS
    one = load(path.read_bytes())
    # Other values in another order: an offset of one version leads to another tensor of the other.
    other = {name.replace("up", "UP").replace("down", "DOWN"): 2 * one[name] for name in one}
    contents = [save(one), save(other)]
    possible = []
    for n, content in enumerate(contents):
        path.write_bytes(content)
        found = analysis(run, tmp_path / f"whole-{n}")
        assert found is not None
        possible += found.rows
    child = forked(partial(rewriting, path, contents, random.Random(3)))
    try:
        for n in range(trials):
            found = analysis(run, tmp_path / f"out-{n}")
            rows = [] if found is None else found.rows
            rows = [row for row in rows if not row["status"].startswith("skipped:")]
            assert [row for row in rows if row not in possible] == []
            assert sum(row["step"] < 3 for row in rows) == 12
    finally:
        child.kill()
        child.ended()
