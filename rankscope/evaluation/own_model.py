"""Checkpoints of this package's trainer, ready to score text."""

from __future__ import annotations

from pathlib import Path

import torch

from rankscope.checkpoints.files.config_files import read_json
from rankscope.scoring.text_model import Network, TextEncoder, TextModel
from rankscope.training.run_folder.trained_model import trained_model

# Input tokens at once; the logits are computed a few at a time anyway. With one thread, twice as
# many outgrow the caches: short sentences take a fifth longer. Half as many are too few for a
# second thread to pay off. For long texts it hardly matters; see benchmarks/evaluation_batches.py.
TOKENS_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 16}


def own_text_model(
    checkpoint: Path, encoder: TextEncoder, *, device: str, precision: str
) -> TextModel:
    """Open a folder such as ``RUN/checkpoints/step-00001000``.

    A live adapter is added to the weights before they are rounded.

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
        # Rotary positions have no limit, but the training sequences had one.
        context=read_json(checkpoint / "config.json")["max_position_embeddings"],
        tokens_at_once=TOKENS_AT_ONCE[device],
        device=device,
        network=Network(model, model),
    )
