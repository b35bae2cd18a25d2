"""Laws of checksums: no number comes from a damaged storage, and none is checked twice."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.serialization import set_crc32_options, skip_data

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files.distributed_file import open_distributed
from rankscope.checkpoints.files.numpy_file import open_arrays
from rankscope.checkpoints.files.torch_file import open_saved
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.same_weights import identical_steps
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError
from tests.analysis.series import analysed, weights
from tests.conftest import CONFIG

COUNTS = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="asks the kernel what was read"
)
Opened = dict[str, Tensor]


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


A, B = numbers(0, 6, 5), numbers(1, 4, 3)


def torch_zip(folder: Path) -> Path:
    torch.save({"a": torch.from_numpy(A), "b": torch.from_numpy(B)}, folder / "f.pt")
    return folder / "f.pt"


def archive(folder: Path) -> Path:
    np.savez(folder / "f.npz", a=A, b=np.asfortranarray(B))
    return folder / "f.npz"


def compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "f.npz", a=A, b=B)
    return folder / "f.npz"


def pieces(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it saves in a single process
        state = {"a": torch.from_numpy(A), "b": torch.from_numpy(B)}
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    return next(folder.glob("*.distcp"))


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Opened]]] = {
    "torch zip": (torch_zip, lambda path: open_saved(path).content),
    "npz": (archive, lambda path: open_arrays(path)[0]),
    "compressed npz": (compressed, lambda path: open_arrays(path)[0]),
    "distributed": (pieces, lambda path: open_distributed(path.parent).tensors),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_flipped_bit_anywhere_changes_no_number(kind: str, tmp_path: Path) -> None:
    write, opened = KINDS[kind]
    path = write(tmp_path)
    content = path.read_bytes()
    expected, refused = {"a": A.tobytes(), "b": B.tobytes()}, 0
    for place in range(0, len(content), 1 + len(content) // 1200):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            tensors = opened(path)
            for name in expected.keys() & tensors.keys():
                assert tensors[name].read().tobytes() == expected[name]
        except RankscopeError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "compressed npz"])
@pytest.mark.parametrize("how", ["whole", "elements", "part"])
def test_a_damaged_tensor_is_named_whatever_part_is_read(
    kind: str, how: str, tmp_path: Path
) -> None:
    write, opened = KINDS[kind]
    path = write(tmp_path)
    content = path.read_bytes()
    place = content.index(A.tobytes()) + A.nbytes - 1  # which neither of the parts has
    path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
    tensors = opened(path)
    a = tensors["a"]
    reads: dict[str, Callable[[], object]] = {
        "whole": a.read,
        "elements": lambda: a.elements(2, 5),
        "part": Part(a, Region(5, ((2, 5),), (3, 1))).read,
    }
    for _ in range(2):
        with pytest.raises(RankscopeError, match="'a': is damaged") as caught:
            reads[how]()
        assert caught.value.reason == "damaged" and caught.value.path == str(path)
    assert tensors["b"].read().tobytes() == B.tobytes()


def test_views_of_one_storage_are_all_refused_where_it_is_damaged(tmp_path: Path) -> None:
    whole = torch.from_numpy(numbers(2, 8, 8))
    saved = {"top": whole[:2], "turned": whole[4:6, 2:5].T, "one": whole[7, 7]}
    torch.save(saved, tmp_path / "f.pt")
    content = (tmp_path / "f.pt").read_bytes()
    place = content.index(whole.numpy().tobytes()) + 3 * 8 * 4  # in a row that no view has
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    for written, is_sound in ((content, True), (changed, False)):
        (tmp_path / "f.pt").write_bytes(written)
        for name, tensor in open_saved(tmp_path / "f.pt").content.items():
            if is_sound:
                assert tensor.read().tobytes() == saved[name].contiguous().numpy().tobytes()
            else:
                with pytest.raises(RankscopeError, match="is damaged"):
                    tensor.read()


@pytest.fixture
def without_checksums() -> Iterator[None]:
    set_crc32_options(False)
    yield
    set_crc32_options(True)


@pytest.mark.usefixtures("without_checksums")
def test_files_that_torch_wrote_without_checksums_are_read(tmp_path: Path) -> None:
    found = open_saved(torch_zip(tmp_path)).content
    assert found["a"].read().tobytes() == A.tobytes()
    assert found["b"].elements(1, 3).tobytes() == B.reshape(-1)[1:3].tobytes()


def test_storages_that_were_filled_in_later_are_read(tmp_path: Path) -> None:
    with skip_data():
        path = torch_zip(tmp_path)
    found = open_saved(path).content["a"]
    content = bytearray(path.read_bytes())
    content[found.offset : found.offset + A.nbytes] = A.tobytes()
    path.write_bytes(content)
    assert open_saved(path).content["a"].read().tobytes() == A.tobytes()


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def cost(work: Callable[[], object]) -> int:
    """Number of bytes that a call reads from files."""
    counting = bytes_read()
    counting = bytes_read() - counting
    before = bytes_read()
    work()
    return bytes_read() - before - counting


@COUNTS
@pytest.mark.parametrize("save", [torch.save, None], ids=["torch", "npz"])
def test_a_storage_is_checked_once(tmp_path: Path, save: object) -> None:
    stack = numbers(3, 32, 128, 128)
    path = tmp_path / "f"
    if save is None:
        path = tmp_path / "f.npz"
        np.savez(path, a=stack)
        tensor: Tensor = open_arrays(path)[0]["a"]
    else:
        torch.save({"a": torch.from_numpy(stack)}, path)
        tensor = open_saved(path).content["a"]
    experts = [Part(tensor, Region.of(stack.shape, index=i)) for i in range(len(stack))]
    each = stack.nbytes // len(stack)
    assert stack.nbytes <= cost(experts[5].read) < stack.nbytes + 2**16
    assert sum(cost(one.read) for one in experts) < stack.nbytes + 2**16
    assert each <= cost(experts[5].read) < each + 2**16
    assert stack.nbytes <= cost(tensor.read) < stack.nbytes + 2**16
    assert all((one.read() == stack[i]).all() for i, one in enumerate(experts))


def test_a_sound_storage_is_checked_again_once_the_file_changes(tmp_path: Path) -> None:
    path = torch_zip(tmp_path)
    tensor = open_saved(path).content["a"]
    tensor.read()
    content = bytearray(path.read_bytes())
    content[tensor.offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(RankscopeError, match="is damaged"):
        tensor.read()


@COUNTS
def test_comparing_checkpoints_reads_no_whole_storage(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        held = {"model.layers.0.mlp.up_proj.weight": torch.from_numpy(numbers(4, 1024, 512))}
        torch.save(held, folder / "pytorch_model.bin")
        (folder / "config.json").write_text(json.dumps(CONFIG))
    run = open_run(tmp_path / "run")
    found: list[object] = []
    assert cost(lambda: found.extend(identical_steps(run))) < 2**19
    assert found == [(1, 2)]


@COUNTS
def test_recognising_copies_reads_no_whole_storage(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint-1.pt"
    path.parent.mkdir()
    network = {"model.layers.0.mlp.up_proj.weight": torch.from_numpy(numbers(4, 1024, 512))}
    torch.save({"generator": network, "other": {n: t + 0 for n, t in network.items()}}, path)

    def opened() -> None:
        for checkpoint in open_run(path.parent):
            checkpoint.read()

    assert cost(opened) < 2**19 < path.stat().st_size / 4


def test_an_analysis_skips_only_the_damaged_matrix(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "run" / "checkpoint-1"
    folder.mkdir(parents=True)
    held = weights(rng)
    torch.save(
        {name: torch.from_numpy(w) for name, w in held.items()}, folder / "pytorch_model.bin"
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
    path, name = folder / "pytorch_model.bin", "layers.1.mlp.up_proj.weight"
    content = bytearray(path.read_bytes())
    content[content.index(held[name].tobytes())] ^= 64
    path.write_bytes(content)
    found = analysed(tmp_path / "run")
    (skip,) = found.skips
    assert (skip.path, skip.tensor, skip.reason) == (str(path), name, "damaged")
    assert sorted(row["status"] for row in found.rows) == ["ok"] * 3 + ["skipped:damaged"]
