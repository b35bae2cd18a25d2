"""Opening a checkpoint as a model that scores text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.errors import RankscopeError
from rankscope.evaluation.model_parts import CONFIG, ModelParts, model_parts
from rankscope.evaluation.prefix import AUTO, prefix_token
from rankscope.evaluation.stored_tokenizer import StoredTokenizer, find_tokenizer
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.training.data.text_encoder import ids_digest

DEVICES, PRECISIONS = ("cpu", "cuda"), ("float32", "bfloat16")


@dataclass(frozen=True)
class OpenOptions:
    """How checkpoints are to be opened.

    Attributes
    ----------
    tokenizer
        A folder with a tokenizer or a ``tokenizer.json``, instead of that of the checkpoint.
    prefix
        What stands before every text, see `prefix_token`.
    device
        ``cpu`` or ``cuda``.
    precision
        ``float32`` or ``bfloat16``, of weights and activations; losses are float32 in any case.
    trust_remote_code
        Whether code that lies beside a model may be run.
    """

    tokenizer: str | None = None
    prefix: str = AUTO
    device: str = "cpu"
    precision: str = "float32"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise RankscopeError(f"{name} = {value!r} must be one of {', '.join(allowed)}")


def open_text_model(
    checkpoint: Checkpoint,
    run: Run,
    options: OpenOptions,
    *,
    encoder: TextEncoder | None = None,
) -> TextModel:
    """Open the model of a checkpoint with its tokenizer.

    Parameters
    ----------
    checkpoint, run
        A checkpoint of this package's trainer, or one that transformers (and peft, for an adapter)
        can open, and the run that it is of.
    options
        How.
    encoder
        Its tokenizer, if `open_encoder` has opened it already.

    Raises
    ------
    RankscopeError
        With the reason ``no-model`` if it is of a layout or kind that has no causal language model;
        if the weights are damaged or incomplete, there is no tokenizer or no GPU, or a package is
        not installed.
    """
    parts = model_parts(checkpoint)
    _require_device(options.device)
    encoder = encoder or open_encoder(checkpoint, run, options)
    if parts.is_own:
        from rankscope.evaluation.own_model import own_text_model

        return own_text_model(
            checkpoint.path, encoder, device=options.device, precision=options.precision
        )
    from rankscope.evaluation.hugging_face import hugging_face_model

    return hugging_face_model(
        parts,
        encoder,
        device=options.device,
        precision=options.precision,
        trust_remote_code=options.trust_remote_code,
    )


def open_encoder(checkpoint: Checkpoint, run: Run, options: OpenOptions) -> TextEncoder:
    """Open the tokenizer of a checkpoint; no weights are read.

    It is looked for beside the weights, beside those of the base model of an adapter, in the run's
    folder and beside the run's last checkpoint.

    Raises
    ------
    RankscopeError
        If there is none, its files are damaged, or it has no token to stand before every text.
    """
    parts = model_parts(checkpoint)
    tokenizer = _tokenizer(checkpoint, run, parts, options)
    vocabulary = tokenizer.vocabulary(read_json(parts.model / CONFIG), is_own=parts.is_own)
    prefix, name = prefix_token(options.prefix, vocabulary)
    return TextEncoder(tokenizer.encode, prefix, name, ids_digest(tokenizer.stored, prefix))


def _tokenizer(
    checkpoint: Checkpoint, run: Run, parts: ModelParts, options: OpenOptions
) -> StoredTokenizer:
    if options.tokenizer is not None:
        places = [Path(options.tokenizer)]
    else:
        beside = [parts.adapter, parts.model, checkpoint.path, run.path, run.checkpoints[-1].path]
        places = [place for place in beside if place is not None and place.is_dir()]
    found = find_tokenizer(places, trust_remote_code=options.trust_remote_code)
    if found is None and options.tokenizer is not None:
        raise RankscopeError("is no tokenizer.json and no folder with one", path=options.tokenizer)
    if found is None:
        raise RankscopeError(
            "has no tokenizer, nor has its run (one whose data came as token ids has none): give "
            "the one that it was trained with, --tokenizer PATH",
            path=checkpoint.path,
        )
    return found


def _require_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RankscopeError("--device cuda was given, but torch sees no GPU: leave it out")
