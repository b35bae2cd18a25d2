"""A checkpoint of this package's trainer as a model that scores text."""

from __future__ import annotations

from pathlib import Path

import torch

from rankscope.checkpoints.files.config_files import read_json
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.training.run_folder.trained_model import trained_model

# Input tokens at once; the logits are computed a few at a time anyway. With one thread, twice as
# many outgrow the caches: short sentences take a fifth longer. Half as many do not pay a second
# thread. Long windows hardly care; measured by benchmarks/evaluation_batches.py.
TOKENS_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 16}


def own_text_model(
    checkpoint: Path, encoder: TextEncoder, *, device: str, precision: str
) -> TextModel:
    """Open a checkpoint; a live adapter is added to the weights before they are rounded.

    Parameters
    ----------
    checkpoint
        A folder such as ``RUN/checkpoints/step-00001000``.
    encoder
        Its tokenizer.
    device
        ``cpu`` or ``cuda``.
    precision
        ``float32`` or ``bfloat16``, of weights and activations.

    Raises
    ------
    RankscopeError
        If a file is missing or damaged.
    """
    model = trained_model(checkpoint).to(device, dtype=getattr(torch, precision))
    return TextModel(
        token_losses=model.token_losses,
        encoder=encoder,
        vocab_size=model.lm_head.out_features,
        # Its rotary positions go on for ever; the sequences that it learned from did not.
        window=read_json(checkpoint / "config.json")["max_position_embeddings"],
        tokens_at_once=TOKENS_AT_ONCE[device],
        device=device,
    )
