from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load

from rankscope.run_files import tensor_bytes

TENSORS = {
    "b.weight": torch.arange(6.0).reshape(2, 3).T,
    "a.scale": torch.tensor([1 / 3], dtype=torch.float64),
    "empty": torch.empty(0, 4),
    "number": torch.tensor(2.5),
    "trained": torch.nn.Parameter(torch.ones(5)),
}


def test_the_library_reads_back_what_was_written() -> None:
    read = load(tensor_bytes(TENSORS))
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype


def test_the_header_says_what_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(tensor_bytes(TENSORS, step="5", restart="1"))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "step": "5", "restart": "1"}


def test_the_order_of_the_tensors_does_not_change_the_bytes() -> None:
    backwards = dict(reversed(TENSORS.items()))
    assert tensor_bytes(TENSORS, a="1", b="2") == tensor_bytes(backwards, a="1", b="2")


def test_every_tensor_begins_at_a_multiple_of_its_item_size() -> None:
    content = tensor_bytes({"a": torch.ones(3), **TENSORS})
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % {"F32": 4, "F64": 8}[entry["dtype"]] == 0


def test_no_tensors_are_an_empty_file() -> None:
    assert load(tensor_bytes({})) == {}
