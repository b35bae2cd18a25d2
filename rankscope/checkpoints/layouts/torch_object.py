"""A file of ``torch.save`` by itself, under any name: the networks that it holds.

TorchScript archives and the agents of Stable-Baselines3 are such files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.agent_zip import POLICY, open_agent
from rankscope.checkpoints.files.kinds import TORCH, WORDS, Kind, is_called_weights, kind_of
from rankscope.checkpoints.files.saved_tables import lack_of_weights, sorted_tables
from rankscope.checkpoints.files.torch_file import Saved, open_saved
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.single_file import (
    config_beside,
    may_be_model,
    step_in_file_name,
)
from rankscope.checkpoints.layouts.torch_tables import step_under, table_of
from rankscope.checkpoints.layouts.whole_weights import whole
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.errors import RankscopeError

STEP_KEYS = ("iter_num", "step", "global_step", "step_count", "update_step", "_checkpoint_step")
CONFIG_KEYS = ("model_args", "model_config", "config", "args", "cfg")


def recognises(path: Path) -> bool:
    """Whether the file is one of torch by its content, and holds what may be a model.

    What is called weights and is damaged counts too, so that it keeps its step, and reading it says
    what is wrong. A file without a tensor of a model, such as the state of an optimizer, is not a
    checkpoint; among the steps of a series it keeps its place.
    """
    if not may_be_model(path):
        return False
    kind = kind_of(path)
    if kind not in TORCH:
        return _is_meant_as_torch(path, kind)
    try:
        saved = _open(path, DEFAULT)
    except RankscopeError:
        return True
    return not lack_of_weights(saved)


def read(path: Path, options: Options) -> Contents:
    """List the tensors of the file.

    Raises
    ------
    RankscopeError
        If the file is damaged, or holds no tensors, or only such as code alone can make.
    """
    saved = _open(path, options)
    key = POLICY if kind_of(path) == "agent" else None
    opened = whole(sorted_tables(saved, key=key), str(path))
    return contents_of(
        "torch",
        opened.tensors,
        config_beside(path) or _config(saved.found),
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def _is_meant_as_torch(path: Path, kind: Kind) -> bool:
    """Whether a file that is not of torch has a name that torch's files have."""
    other = path.suffix.lower() in (".safetensors", ".npz") or kind in ("safetensors", "npz")
    return is_called_weights(path) and not other and kind != "none"


def _open(path: Path, options: Options) -> Saved:
    """A file of torch, or the zip of an agent; what is damaged is refused with its reason."""
    kind = kind_of(path)
    if kind == "agent":
        return open_agent(path, trust=options.trust_pickle)
    if kind in WORDS:
        raise RankscopeError(WORDS[kind], path=path, reason="other-kind")
    return open_saved(path, trust=options.trust_pickle)


def _config(found: Any) -> Mapping[str, Any]:
    """Config of the model where it is stored with it."""
    entries = found if isinstance(found, Mapping) else {}
    tables = (table_of(entries.get(key)) for key in CONFIG_KEYS)
    return next((table for table in tables if table), {})


def step(path: Path) -> Step | None:
    """Step that the object states, or else the name of the file."""
    return step_under(path, *STEP_KEYS) or step_in_file_name(path)


LAYOUT = Layout(
    "torch: a file of torch.save, whatever its name, with a model's weights in it; TorchScript; "
    "agents of Stable-Baselines3",
    recognises,
    read,
    step,
    is_file=True,
)
