"""Opening a checkpoint as a model that scores text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.evaluation.model_parts import CONFIG, ModelParts, model_parts
from rankscope.evaluation.prefix import AUTO, prefix_token
from rankscope.evaluation.stored_tokenizer import StoredTokenizer, find_tokenizer
from rankscope.pipeline.choices import require_name
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.training.config.tree import Device as Device
from rankscope.training.config.tree import Precision as Precision
from rankscope.training.data.corpus_tokenizer import ids_digest


@dataclass(frozen=True)
class OpenOptions:
    """How to open checkpoints, as in the parameters of `rankscope.evaluate`."""

    tokenizer: str | None = None
    prefix: str = AUTO
    device: Device = "cpu"
    precision: Precision = "float32"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        require_name(self.device, get_args(Device), setting="device")
        require_name(self.precision, get_args(Precision), setting="precision")
        if self.tokenizer is not None and not Path(self.tokenizer).exists():
            message = "does not exist: `tokenizer` is a tokenizer.json, or a folder with one"
            raise WrongSettingError(message, path=self.tokenizer)


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
        can open, and its run.
    encoder
        Its tokenizer, if `open_encoder` has opened it already.

    Raises
    ------
    WrongSettingError
        If a GPU is requested and there is none.
    RankscopeError
        With the reason ``no-model`` if its layout or kind has no causal language model; if the
        weights are damaged or incomplete, there is no tokenizer, or a package is not installed.
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

    It is looked for next to the weights or those of an adapter's base model, in the run's folder,
    and in the run's last checkpoint.

    Raises
    ------
    RankscopeError
        If there is none, its files are damaged, or it has no token to put before every text.
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
        paths = [Path(options.tokenizer)]
    else:
        beside = [parts.adapter, parts.model, checkpoint.path, run.path, run.checkpoints[-1].path]
        paths = [path for path in beside if path is not None and path.is_dir()]
    found = find_tokenizer(paths, trust_remote_code=options.trust_remote_code)
    if found is None and options.tokenizer is not None:
        message = "is neither a tokenizer.json nor a folder with a tokenizer"
        raise WrongSettingError(message, path=options.tokenizer)
    if found is None:
        raise RankscopeError(
            "no tokenizer found here or in its run (a run trained on token ids has none): pass the "
            "`tokenizer` that it was trained with",
            path=checkpoint.path,
        )
    return found


def _require_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise WrongSettingError('`device` is "cuda", but torch finds no GPU: leave it out')
