"""Limits on what a file may make: small files that would take for ever, and every limit itself."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rankscope.analysis.preview import preview
from rankscope.checkpoints import folder_tree, limits
from rankscope.checkpoints.adapters import name_patterns
from rankscope.checkpoints.adapters.name_patterns import NamePatterns
from rankscope.checkpoints.adapters.peft_config import with_patterns
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.families import quantised
from rankscope.checkpoints.files import (
    config_files,
    numpy_file,
    pickle_machine,
    safetensors_file,
    torch_before_1_6,
    torch_file,
    zip_file,
)
from rankscope.checkpoints.files.config_files import read_json, read_yaml
from rankscope.checkpoints.files.inert_names import Opaque
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.torch_file import open_saved
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.options import DEFAULT
from rankscope.errors import RankscopeError, WrongSettingError
from tests.analysis.series import analysed
from tests.reliability.bounded import outcome, seconds_after_interrupt
from tests.reliability.small_bombs import (
    BOMBS,
    NAME,
    Bomb,
    compressed,
    pickled,
    safetensors,
    sparse,
    torch_zip,
    view,
)


def read(folder: Path) -> Contents:
    """Contents of a folder, or of the one file in it, as `inspect` and `analyze` open it."""
    found = {path: layout_of(path) for path in (folder, *sorted(folder.iterdir()))}
    path, name = next((path, name) for path, name in found.items() if name is not None)
    return LAYOUTS[name].read(path, DEFAULT)


def reason_of(work: object) -> str:
    try:
        work()  # type: ignore[operator]
    except RankscopeError as error:
        assert len(str(error)) < 500
        return error.reason
    return "done"


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_a_small_file_takes_neither_long_nor_much(bomb: Bomb, tmp_path: Path) -> None:
    bomb.write(tmp_path)
    assert outcome(lambda: read(tmp_path)) == bomb.ends


def inspected(folder: Path) -> None:
    preview(survey([folder]))


@pytest.mark.slow
@pytest.mark.parametrize("command", [inspected, analysed])
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_nor_does_the_command_for_it(
    bomb: Bomb, command: Callable[[Path], object], tmp_path: Path
) -> None:
    bomb.write(tmp_path)
    assert outcome(lambda: command(tmp_path)) == "done"


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_an_interrupt_ends_reading_within_a_second(bomb: Bomb, tmp_path: Path) -> None:
    bomb.write(tmp_path)
    assert seconds_after_interrupt(lambda: analysed(tmp_path)) < 1


def test_the_wait_for_an_interrupt_is_measured() -> None:
    def deaf() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while time.process_time() < 0.4:
            pass
        raise KeyboardInterrupt

    assert seconds_after_interrupt(deaf, after=0.1) > 0.2


def saved(folder: Path, program: bytes) -> Path:
    path = folder / "saved.pt"
    path.write_bytes(torch_zip(program))
    return path


def test_operations_of_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "PER_TENSOR", 0)
    monkeypatch.setattr(pickle_machine, "MAX_OPERATIONS", 100)
    for count, ends in ((96, "done"), (97, "over-limit")):  # with PROTO, MARK, LIST and STOP
        path = saved(tmp_path, pickled(b"(", b"N" * count, b"l"))
        assert reason_of(lambda path=path: open_saved(path)) == ends


def test_entries_of_the_archive_allow_more_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_OPERATIONS", 0)
    for count, ends in ((296, "done"), (297, "over-limit")):
        path = saved(tmp_path, pickled(b"(", b"N" * count, b"l"))
        assert reason_of(lambda path=path: open_saved(path)) == ends


def test_what_calls_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "PER_TENSOR", 0)
    monkeypatch.setattr(pickle_machine, "MAX_COPIED", 100)
    for count, ends in ((96, "done"), (97, "over-limit")):  # the list itself counts as four
        program = pickled(b"cbuiltins\nlist\n(", b"N" * count, b"l\x85R")
        path = saved(tmp_path, program)
        assert reason_of(lambda path=path: open_saved(path)) == ends


def test_open_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_MARKS", 50)
    for count, ends in ((50, "done"), (51, "over-limit")):
        path = saved(tmp_path, pickled(b"(" * count, b"l" * count))
        assert reason_of(lambda path=path: open_saved(path)) == ends


@pytest.mark.parametrize("kind", ["bytes", "tuple"])
def test_keys(tmp_path: Path, kind: str) -> None:
    for count, ends in ((limits.MAX_KEY - 1, "done"), (limits.MAX_KEY + 1, "over-limit")):
        key = b"B" + struct.pack("<I", count) + bytes(count)
        if kind == "tuple":  # every part counts, and so does its place
            key = b"(" + b"N" * ((count + 1) // 2) + b"t"
        path = saved(tmp_path, pickled(b"}", key, b"K\1s"))
        assert reason_of(lambda path=path: open_saved(path)) == ends


def test_keys_that_are_no_text_become_text(tmp_path: Path) -> None:
    program = pickled(b"}(", b"K\1K\2\x86K\1", b"B\1\0\0\0xK\2", b"K\5K\3", b"u")
    assert open_saved(saved(tmp_path, program)).content == {"(1, 2)": 1, "b'x'": 2, 5: 3}


def test_a_view_may_be_four_times_its_file_and_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, view((16, 1000), (1, 0)))
    size = path.stat().st_size
    monkeypatch.setattr(torch_file, "FREE_BYTES", 64_000 - limits.VIEWS * size)
    assert open_saved(path).content[NAME].shape == (16, 1000)
    path.rename(tmp_path / "other.pt")
    monkeypatch.setattr(torch_file, "FREE_BYTES", 63_999 - limits.VIEWS * size)
    closed = open_saved(tmp_path / "other.pt").content[NAME]
    assert isinstance(closed, Opaque) and closed.reason == "expands" and closed.shape == (16, 1000)


def test_an_expanded_view_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(torch_zip(view((2**14, 2**14), (0, 0))))
    (skip,) = read(tmp_path).skips
    assert (skip.tensor, skip.reason) == (NAME, "expands")


def test_compressed_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(compressed(2**22, (2**10, 2**10)))
    free = 2**22 + 128 - limits.COMPRESSION * path.stat().st_size
    for less, names in ((0, [NAME]), (1, [])):
        monkeypatch.setattr(numpy_file, "FREE_BYTES", free - less)
        arrays, skips = numpy_file.open_arrays(path)
        assert [*arrays] == names and [skip.reason for skip in skips] == ["expands"] * less


def test_the_directory_of_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, pickled(b"N"))
    with zipfile.ZipFile(path) as archive:
        length = sum(46 + len(info.filename) for info in archive.infolist())
    for most, ends in ((length, "done"), (length - 1, "over-limit")):
        monkeypatch.setattr(zip_file, "MAX_DIRECTORY", most)
        torch_file._remembered.cache_clear()
        assert reason_of(lambda: open_saved(path)) == ends


def test_values_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    monkeypatch.setattr(limits, "MAX_VALUES", 10)
    for count, ends in ((8, "done"), (9, "over-limit")):
        path.write_text(json.dumps({"a": [0] * (count + 1)}))
        assert reason_of(lambda: read_json(path)) == ends


LINES = ["1,", "[", "{", "- ", "-\t", "? ", "?\t", "\n", "\r", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line", LINES, ids=repr)
def test_values_of_yaml(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    monkeypatch.setattr(limits, "MAX_YAML_VALUES", 10)
    for count, is_over in ((10, False), (11, True)):
        path.write_text(f"a: {line * count}", encoding="utf-8")
        assert (reason_of(lambda: read_yaml(path)) == "over-limit") == is_over


def test_brackets_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for count, ends in ((limits.MAX_DEPTH, "done"), (limits.MAX_DEPTH + 1, "over-limit")):
        path.write_text(f"a: {'[' * count}{']' * count}")
        assert reason_of(lambda: read_yaml(path)) == ends


def test_all_tables_of_a_config_share_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "MAX_STEPS", 150)  # of which each pattern takes 97
    with_patterns({"rank_pattern": {"a+b": 1}})
    with pytest.raises(RankscopeError, match="steps"):
        with_patterns({"rank_pattern": {"a+b": 1}, "alpha_pattern": {"a+b": 1}})


def test_a_long_name_is_shortened_and_its_tensor_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for letters in (limits.MAX_NAME, limits.MAX_NAME + 1):
        path.write_bytes(safetensors({"a" * letters: entry}, bytes(16)))
        (name,) = open_tensors(path)
        assert (name == "a" * letters) == (letters <= limits.MAX_NAME)
        assert len(name) <= limits.MAX_NAME
    assert limits.short_name("a" * 2000) != limits.short_name("a" * 1999 + "b")


YAML = {
    "merged mappings": "a: &a {x: 1}\nb: {<<: *a}\n",
    "a key that is a list": "? [a]\n: 1\n",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_yaml_that_multiplies_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(RankscopeError, match="is not valid YAML"):
        read_yaml(path)


def test_keys_and_long_numbers_of_yaml_are_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"1: 2\na: {'1' * limits.MAX_NAME}\nb: {'1:' * limits.MAX_NAME}1\n")
    read = read_yaml(path)
    assert read == {
        "1": 2,
        "a": int("1" * limits.MAX_NAME),
        "b": "1:" * limits.MAX_NAME + "1",
    }


def test_steps_of_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "MAX_STEPS", 200)  # of which the pattern takes half
    patterns, fits = NamePatterns({"a+b": 1}), []
    with pytest.raises(RankscopeError, match="steps") as caught:
        for _ in range(100):
            fits.append(patterns.value("x.aaab", None))
    assert caught.value.reason == "over-limit" and fits[:3] == [1, 1, 1]


def test_letters_of_a_pattern() -> None:
    assert NamePatterns({"[a]" + "a" * 300: 1}).value("a" * 301, 0) == 1
    with pytest.raises(RankscopeError, match=f"more than {limits.MAX_PATTERN}"):
        NamePatterns({"[a]" + "a" * limits.MAX_PATTERN: 1})


def test_numbers_of_a_key_that_may_share_a_hash_become_text(tmp_path: Path) -> None:
    """Python's hash of a number is the number modulo 2^61 - 1: larger ones can be chosen alike."""
    for number, is_kept in ((2**64 - 1, True), (2**64, False), (-(2**64), False)):
        content = number.to_bytes(10, "little", signed=True)
        program = pickled(b"}", b"\x8a" + bytes([len(content)]) + content, b"K\1s")
        (key,) = open_saved(saved(tmp_path, program)).content
        assert key == (number if is_kept else str(number))


def test_sizes_and_offsets(tmp_path: Path) -> None:
    for numbers in ([0, 2**60], (2**60,), []):
        assert limits.are_counts(numbers)
    for other in ([2**60 + 1], [-1], [1.0], [True], ["1"], 3, None, {1}):
        assert not limits.are_counts(other)
    path = tmp_path / "model.safetensors"
    for size, ends in ((2**60, "done"), (2**60 + 1, "header-type")):
        entry = {"dtype": "F32", "shape": [0, size], "data_offsets": [0, 0]}
        path.write_bytes(safetensors({"a": entry}, b""))
        assert reason_of(lambda: open_tensors(path)) == ends


VALUES = {
    "MAX_HEADER": 100_000_000, "MAX_ARRAY_HEADER": 10_000, "MAX_JSON": 67_108_864,
    "MAX_YAML": 1_048_576, "MAX_BYTES": 268_435_456, "MAX_CODE": 16_777_216,
    "MAX_VALUES": 4_194_304, "MAX_YAML_VALUES": 20_000, "MAX_OPERATIONS": 1_048_576,
    "PER_TENSOR": 100, "BYTES_PER_TENSOR": 4096, "MAX_MARKS": 10_000, "MAX_COPIED": 4_194_304,
    "DEAR": 4, "MAX_DIRECTORY": 16_777_216, "MAX_COMPARED": 524_288, "MAX_DEPTH": 64,
    "MAX_NAME": 1000, "MAX_KEY": 1000, "MAX_KEY_BITS": 64, "MAX_PATTERN": 1000,
    "MAX_STEPS": 2_097_152, "FREE_BYTES": 4_194_304, "VIEWS": 4, "COMPRESSION": 64,
    "MAX_SIZE": 1_152_921_504_606_846_976, "SHARE": 0.9,
}  # fmt: skip


def test_every_limit_has_the_value_that_was_chosen() -> None:
    """The other tests here move a limit, or go by it: they pass whatever its value is."""
    numbers = {
        name: value
        for name, value in vars(limits).items()
        if name.isupper() and isinstance(value, int | float)
    }
    assert numbers == VALUES


def legacy(folder: Path) -> Path:
    """A file as torch wrote it before 1.6, of one tensor of 40 kB."""
    import torch

    path = folder / "saved.pt"
    torch.save({"a": torch.zeros(100, 100)}, path, _use_new_zipfile_serialization=False)
    return path


def array(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros((2, 2)))
    return folder / "a.npy"


def text(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


def one_tensor(folder: Path) -> Path:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    (folder / "model.safetensors").write_bytes(safetensors({"a": entry}, bytes(16)))
    return folder / "model.safetensors"


def deep(folder: Path) -> object:
    below = folder / "a" / "b" / "c" / "checkpoint-1"
    below.mkdir(parents=True)
    one_tensor(below)
    return survey([folder])


# A limit that no test above goes by, where it is looked at, what is planted there, what meets it.
USED: tuple[tuple[ModuleType, str, int, Callable[[Path], object]], ...] = (
    (safetensors_file, "MAX_HEADER", 10, lambda at: open_tensors(one_tensor(at))),
    (numpy_file, "MAX_ARRAY_HEADER", 20, lambda at: numpy_file.open_arrays(array(at))),
    (config_files, "MAX_JSON", 5, lambda at: read_json(text(at, "a.json", '{"a": 1}'))),
    (config_files, "MAX_YAML", 3, lambda at: read_yaml(text(at, "a.yaml", "a: 1"))),
    (torch_file, "MAX_BYTES", 3, lambda at: open_saved(saved(at, pickled(b"N")))),
    (torch_before_1_6, "MAX_BYTES", 50, lambda at: open_saved(legacy(at))),
    (torch_before_1_6, "BYTES_PER_TENSOR", 2**20, lambda at: open_saved(legacy(at))),
    (quantised, "MAX_COMPARED", 5, lambda _: quantised._Quantised().count(6)),
    (folder_tree, "MAX_DEPTH", 1, deep),
)


@pytest.mark.parametrize(("module", "name", "planted", "meets"), USED, ids=[one[1] for one in USED])
def test_every_limit_is_looked_at(
    module: ModuleType,
    name: str,
    planted: int,
    meets: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is well below a limit is read, and refused where the limit is lower."""
    if name == "BYTES_PER_TENSOR":
        monkeypatch.setattr(pickle_machine, "MAX_OPERATIONS", 35)
    for place in (tmp_path / "below", tmp_path / "above"):
        place.mkdir()
        assert (reason_of(lambda place=place: meets(place)) == "done") == (place.name == "below")
        monkeypatch.setattr(module, name, planted)


SIZES = {"64GB": 64 * 10**9, "1.5 TB": 15 * 10**11, "300": 300, "2GiB": 2 * 2**30, "1kb": 1000}


@pytest.mark.parametrize(("stated", "size"), SIZES.items())
def test_the_memory_that_is_stated(stated: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.MEMORY, stated)
    assert limits.memory_budget() == size
    limits.check_memory(size, "a matrix")
    with pytest.raises(RankscopeError, match="more than the") as caught:
        limits.check_memory(size + 1, "a matrix")
    assert caught.value.reason == "too-large"


def test_a_memory_that_is_no_size_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.MEMORY, "lots")
    with pytest.raises(WrongSettingError, match="RANKSCOPE_MEMORY is 'lots'"):
        limits.memory_budget()


def test_by_default_most_of_this_machine_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(limits.MEMORY, raising=False)
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < limits.memory_budget() <= kilobytes * 1024


@pytest.mark.parametrize("side", [50_000, 500_000])
def test_a_matrix_that_memory_cannot_hold_is_refused_at_once(
    side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankscope.analysis.worker import decompose
    from rankscope.components.recipes import Weight
    from rankscope.pipeline.engine import Failure

    monkeypatch.setenv(limits.MEMORY, "8GB")
    sparse(tmp_path, side)
    (tensor,) = open_tensors(tmp_path / "model.safetensors").values()
    start = time.process_time()
    failed = decompose(Weight(tensor))
    assert time.process_time() - start < 0.1
    assert isinstance(failed, Failure) and (failed.reason, failed.tensor) == ("too-large", NAME)
    assert "of memory, more than the 8 GB that may be used" in failed.message
    with pytest.raises(RankscopeError, match="more than the 8 GB"):
        tensor.read()


def test_the_estimate_is_never_above_what_a_spectrum_takes(tmp_path: Path) -> None:
    """An honest matrix is not refused on a machine that can hold it: 128k × 8k in bfloat16."""
    from rankscope.checkpoints.tensors import StoredTensor
    from rankscope.components.memory import least_memory

    embedding = StoredTensor("model", NAME, "bfloat16", (131_072, 8192), 0)
    assert 12e9 < least_memory((embedding,)) < 15e9
    wide = StoredTensor("model", NAME, "bfloat16", (16_384, 53_248), 0)
    assert 11e9 < least_memory((wide,)) < 12e9


def test_many_tensors_take_time_in_proportion(tmp_path: Path) -> None:
    """Twice as many tensors in one module take about twice as long, not four times."""
    taken = []
    for count in (1000, 4000):
        header = {
            f"n{i:05d}": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * i, 16 * i + 16]}
            for i in range(count)
        }
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors(header, np.arange(4 * count, dtype="<f4").tobytes()))
        tries = []
        for _ in range(3):  # objects of earlier tests are looked at now and then
            start = time.process_time()
            read(tmp_path)
            tries.append(time.process_time() - start)
        taken.append(min(tries))
    assert taken[1] < 9 * taken[0]


@pytest.mark.slow
def test_an_interrupt_ends_a_decomposition_within_a_second(tmp_path: Path) -> None:
    """While one call of the linear algebra library computes, where Python's handlers wait."""
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        sparse(folder, 6000)  # zeros, whose spectrum takes half a minute
    command = [sys.executable, "-m", "rankscope", "analyze", str(tmp_path), "--jobs", "1"]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    time.sleep(4)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    start = time.monotonic()
    running.communicate()
    assert running.returncode == 130
    assert time.monotonic() - start < 1 + 4 * max(0.0, os.getloadavg()[0] / (os.cpu_count() or 1))
