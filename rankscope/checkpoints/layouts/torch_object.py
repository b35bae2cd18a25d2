"""A file of ``torch.save`` by itself, under any name, and the networks in it.

TorchScript archives and agents of Stable-Baselines3 are such files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import config_beside
from rankscope.checkpoints.files.file_names import is_called_weights, may_be_model
from rankscope.checkpoints.files.kinds import REFUSALS, TORCH, Kind, kind_of
from rankscope.checkpoints.files.opened_file import whole
from rankscope.checkpoints.files.saved_tables import lack_of_weights, sorted_tables
from rankscope.checkpoints.files.torch_file import POLICY, Saved, open_agent, open_saved
from rankscope.checkpoints.files.weights_file import step_under, table_of
from rankscope.checkpoints.layouts.layout import Layout, Step, step_in_file_name
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.errors import RankscopeError

STEP_KEYS = ("iter_num", "step", "global_step", "step_count", "update_step", "_checkpoint_step")
CONFIG_KEYS = ("model_args", "model_config", "config", "args", "cfg")


def recognises(path: Path) -> bool:
    """Whether the file is a torch file by its content and holds what may be a model.

    A damaged file with a name of weights counts too, so that it keeps its step; reading it shows
    what is wrong. A file without a tensor of a model, such as the state of an optimizer, is not a
    checkpoint, but keeps its place among the steps of a series.
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
        If the file is damaged, or holds no tensors except those that only code can make.
    """
    saved = _open(path, options)
    key = POLICY if kind_of(path) == "agent" else None
    opened = whole(sorted_tables(saved, key=key), str(path))
    return contents_of(
        "torch",
        opened.tensors,
        config_beside(path) or _config(saved.content),
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def _is_meant_as_torch(path: Path, kind: Kind) -> bool:
    """Whether a file that is not a torch file has a name of torch files."""
    other = path.suffix.lower() in (".safetensors", ".npz") or kind in ("safetensors", "npz")
    return is_called_weights(path) and not other and kind != "none"


def _open(path: Path, options: Options) -> Saved:
    """Open a torch file or the zip of an agent; a file of another kind is refused with advice."""
    kind = kind_of(path)
    if kind == "agent":
        return open_agent(path, trust=options.trust_pickle)
    if kind in REFUSALS:
        raise RankscopeError(REFUSALS[kind], path=path, reason="other-kind")
    return open_saved(path, trust=options.trust_pickle)


def _config(content: Any) -> Mapping[str, Any]:
    """Config of the model, where it is stored with it."""
    entries = content if isinstance(content, Mapping) else {}
    tables = (table_of(entries.get(key)) for key in CONFIG_KEYS)
    return next((table for table in tables if table), {})


def step(path: Path) -> Step | None:
    """Step that the object states, or else the name of the file."""
    return step_under(path, *STEP_KEYS) or step_in_file_name(path)


LAYOUT = Layout(
    "torch: a file of torch.save with a model's weights in it, whatever its name; TorchScript; "
    "agents of Stable-Baselines3",
    recognises,
    read,
    step,
    is_file=True,
)
