"""Keys of tasks: they depend on the text of a recipe, which stores of other versions hold too."""

import hashlib
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

from rankscope.analysis.spectra_tasks import SeenFiles, task_of
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.component import Component
from rankscope.components.recipes import Weight
from rankscope.results import spectra_store


def test_a_key_is_the_digest_of_a_component_without_the_path_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "it's.safetensors"
    file.write_bytes(b"some bytes")
    tensor = StoredTensor(str(file), "h.3.up.weight", "float32", (4, 8), 16)
    component = Component("weight", 3, "up", None, tensor.name, Weight(tensor))
    task = task_of(component, SeenFiles())
    assert [path for path, _ in task.files] == [str(file)]

    # As records of the standard library are written, which is how keys have always been made.
    stored: dict[str, Any] = {
        "path": str(file),
        "name": tensor.name,
        "dtype": "float32",
        "shape": (4, 8),
        "offset": 16,
        "strides": None,
        "checksum": None,
    }
    parts = {
        "tensor": make_dataclass("StoredTensor", stored)(**stored),
        "adapter": None,
        "origin": None,
    }
    recipe = repr(make_dataclass("Weight", parts)(**parts))
    place = {
        "kind": "weight",
        "layer": 3,
        "role": "up",
        "expert": None,
        "name": tensor.name,
        "recipe": recipe.replace(repr(str(file)), fingerprint(file)),
        "heads": 0,
        "since": None,
        "restarts": None,
        "window": "",
    }
    text = f"{spectra_store.VERSION} {place}"
    assert task.key == hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def test_files_keep_the_state_in_which_they_were_first_seen(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"before")
    seen = SeenFiles([file])
    file.write_bytes(b"after that")
    tensor = StoredTensor(str(file), "w", "float32", (4, 8), 16)
    task = task_of(Component("weight", None, "up", None, "w", Weight(tensor)), seen)
    ((_, state),) = task.files
    assert state is not None
    assert state[0] == len(b"before")
