"""The model before the first update: drawn from the seed, or loaded from a folder of weights."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch

from rankscope.errors import WrongSettingError
from rankscope.run_files import step_name
from rankscope.training.config import Config, ModelConfig
from rankscope.training.model import LanguageModel
from rankscope.training.run_folder.trained_model import trained_model

# These decide how weights are drawn, and the rows of the embedding are compared apart.
NO_SHAPE = {"vocab_size", "initialisation", "initializer_range"}


def initial_model(config: Config, vocab_size: int, *, resuming: bool = False) -> LanguageModel:
    """Return the model that a run begins with, which does not depend on the method.

    Parameters
    ----------
    config
        The run; its ``init`` names the folder of the weights, if there is one.
    vocab_size
        Vocabulary size of the data; the model may have more rows.
    resuming
        Take the weights from the run's first checkpoint instead, so that ``init`` need not be
        there any more.

    Raises
    ------
    WrongSettingError
        If the device is missing, or if vocabulary or shape do not fit the data or the folder.
    RankscopeError
        If the weights of the folder cannot be read.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise WrongSettingError("device = 'cuda', but torch finds no GPU: set device = 'cpu'")
    rows = config.model.vocab_size or vocab_size
    if rows < vocab_size:
        raise WrongSettingError(
            f"model.vocab_size = {rows} is less than the {vocab_size} of the data: leave it out"
        )
    if config.init:
        first = Path(config.out) / "checkpoints" / step_name(0)
        return _model_of(first if resuming else Path(config.init), config.model, rows)
    model = LanguageModel(config.model, rows)
    model.initialise(config.seed)
    return model


def _model_of(folder: Path, shape: ModelConfig, rows: int) -> LanguageModel:
    """Read the weights of a folder into a model of this shape."""
    if not folder.is_dir():
        raise WrongSettingError("does not exist, or is not a folder", path=folder)
    stored = trained_model(folder)
    differing = [
        (f"model.{f.name}", theirs, ours)
        for f in fields(ModelConfig)
        if f.name not in NO_SHAPE
        and (theirs := getattr(stored.config, f.name)) != (ours := getattr(shape, f.name))
    ]
    if (stored_rows := len(stored.lm_head.weight)) != rows:
        differing.append(("model.vocab_size", stored_rows, rows))
    if differing:
        listed = "; ".join(
            f"{name} is {theirs} there and {ours} here" for name, theirs, ours in differing
        )
        raise WrongSettingError(f"has a model of another shape: {listed}", path=folder)
    model = LanguageModel(shape, rows)
    model.load_state_dict(stored.state_dict())
    return model
