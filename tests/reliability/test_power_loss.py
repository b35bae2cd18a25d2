"""What `rankscope.durable` promises, at every loss of power that it may meet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from rankscope import durable
from rankscope.training.data import token_folder
from rankscope.training.data.prepare import prepare_tokens
from tests.reliability.power_loss.disk import Size
from tests.reliability.power_loss.faults import Fault, altered, planted, without_flushes
from tests.reliability.power_loss.promises import crash_states, marked
from tests.reliability.power_loss.recording import Recording, put, recording, tree_of

KIND = "test-1"
SIZE = Size(product=64, pairs=200, random=20)
OLD, NEW = {"x": b"12345", "sub/y": b"abc"}, {"x": b"1234x", "sub/y": b"abcd"}


def write_by_other_means(path: Path) -> None:
    """As a file is written that is larger than memory."""
    with path.open("wb") as file:
        file.write(b"ids")
        file.flush()
        os.fsync(file.fileno())


def write_everything(root: Path) -> Recording:
    """Use each function of `durable` in a folder, where an earlier process has left its rest."""
    durable.write_folder(root / "left" / "step", OLD, kind=KIND)
    moved_aside = f"{durable._temporary(root / 'left' / 'step').name}.old"
    put({"x": b"123"}, root / "left" / moved_aside)  # and half removed
    with recording(root) as found, marked(found):
        durable.write_file(root / "a" / "b" / "file", b"one")
        durable.write_file(root / "a" / "b" / "file", b"two!")
        durable.write_folder(root / "steps" / "step", OLD, kind=KIND)
        durable.write_folder(root / "steps" / "step", NEW, kind=KIND)
        for name, content in (("p", b"1111"), ("q", b"2222"), ("p", b"3333")):
            durable.write_listed_file(root / "all" / name, content, kind=KIND)
        with durable.new_folder(root / "prepared" / "data") as folder:
            write_by_other_means(folder / "ids")
        durable.rename_folder(root / "prepared" / "data", root / "prepared" / "renamed")
        for content in (b"rows", b"more rows"):
            with durable.GrowingFile(root / "a" / "table") as file:
                file.write(content)
                file.complete()
        durable.append(root / "a" / "log", b"line\n")
        durable.flush_file(root / "a" / "log")
        durable.append(root / "a" / "log", b"another\n")
        durable.remove_file(root / "a" / "b" / "file")
        durable.remove_folder(root / "steps" / "step")
        durable.sweep(root / "left", alone=True)
        durable.remove_folder(root / "left" / "step")
    return found


def violations(found: Recording, scratch: Path) -> Iterator[str]:
    for state in crash_states(found, SIZE):
        put(state.tree, scratch)
        for folder in (scratch, *(scratch / name for name in ("a/b", "steps", "all", "left"))):
            durable.sweep(folder, alone=True)
        after = f"after {found.operations[state.position - 1]}" if state.position else "at first"
        yield from (f"{path} {after}" for path in state.broken(tree_of(scratch)))
        is_listed = (scratch / "all" / durable.MANIFEST).exists()
        if is_listed and (reason := durable.damage(scratch / "all")):
            yield f"all: {reason} {after}"
        shutil.rmtree(scratch)


def test_a_loss_of_power_breaks_no_promise(tmp_path: Path) -> None:
    assert list(violations(write_everything(tmp_path / "disk"), tmp_path / "scratch")) == []


# Every flush, and every order that matters.
FAULTS = [
    *without_flushes(durable),
    altered(
        durable,
        "a file is written in place",
        "_write(temporary, content, wait=wait)\n            replace(temporary, path)",
        "_write(path, content, wait=wait)",
    ),
    altered(
        durable,
        "a manifest lists a file before it is written",
        "    write_file(path, content)\n    _write_manifest(",
        "    _write_manifest(folder, {**listed, path.name: entry}, kind)\n"
        "    write_file(path, content)\n    _write_manifest(",
    ),
    altered(
        durable,
        "a manifest lists a file while another takes its place",
        "if listed.pop(path.name, entry) != entry:",
        "if False:",
    ),
    altered(
        durable,
        "the old folder goes before the new one comes",
        "path.rename(old)\n",
        "shutil.rmtree(path)\n",
    ),
    altered(
        durable,
        "a folder is removed under its name",
        "path.rename(doomed)\n    _flush(path.parent)\n    shutil.rmtree(doomed)",
        "shutil.rmtree(path)\n    _flush(path.parent)",
    ),
    altered(
        durable,
        "a folder is flushed after it has its name",
        "_flush(folder)\n            _replace_folder(temporary, path)",
        "pass\n            _replace_folder(temporary, path)\n            _flush(path)",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_found(tmp_path: Path, fault: Fault) -> None:
    with planted(fault):
        found = write_everything(tmp_path / "disk")
    assert any(violations(found, tmp_path / "scratch"))


def prepared(root: Path, text: Path) -> Recording:
    with recording(root) as found, marked(found):
        prepare_tokens([str(text)], root / "data" / "ids")
    return found


@pytest.mark.parametrize("fault", [None, *without_flushes(token_folder)], ids=str)
def test_prepared_data_are_whole_or_not_there(tmp_path: Path, fault: Fault | None) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a quick brown fox\n" * 40)
    with planted(fault) if fault else nullcontext():
        found = prepared(tmp_path / "disk", text)
    lost = [state for state in crash_states(found, SIZE) if state.broken(state.tree)]
    assert bool(lost) == bool(fault)
