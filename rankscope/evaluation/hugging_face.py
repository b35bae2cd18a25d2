"""Models that transformers can open, ready to score text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.layouts.huggingface import open_weights
from rankscope.checkpoints.limits import memory_budget
from rankscope.errors import RankscopeError, first_line
from rankscope.evaluation.libraries import quiet_transformers, require
from rankscope.evaluation.model_parts import CONFIG, NO_MODEL, ModelParts
from rankscope.scoring.text_model import Network, TextEncoder, TextModel

# Logits of one batch in bytes, and input tokens where the vocabulary is small.
LOGIT_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
MOST_TOKENS = {"cpu": 1 << 12, "cuda": 1 << 16}
# Logits that are copied to float32 at once: as many as processor caches hold.
CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
# What families call the number of positions that they were trained with.
CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "context_length",
)
# Sizes in configs; the sides of some weights, and their number.
SIDES = (
    *("hidden_size", "n_embd", "d_model", "dim", "n_inner", "ffn_dim", "intermediate_size"),
    *("vocab_size", "num_attention_heads", "n_head", "head_dim"),
)
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
LARGER = 8  # than the weights show: a layer may be used several times
# For models that state none because they have no limit: Mamba and BLOOM were trained with this.
UNSTATED_CONTEXT = 2048
# Relative to the largest logit: more than rounding, less than the effect of later words even in an
# untrained BERT (0.006). For the causal models of transformers the effect is 0.
AHEAD = {"float32": 1e-3, "bfloat16": 1e-2}


def hugging_face_model(
    parts: ModelParts,
    encoder: TextEncoder,
    *,
    device: str,
    precision: str,
    trust_remote_code: bool = False,
) -> TextModel:
    """Open a model with its adapter from this machine's disk; nothing is downloaded.

    Logits are in the model's precision, losses always in float32.

    Raises
    ------
    RankscopeError
        If transformers, or peft for an adapter, is not installed; with the reason ``no-model`` if
        it is not a causal language model, or not one that transformers knows; if weights are
        missing, or have shapes that differ from the config.
    """
    require("transformers")
    config = read_json(parts.model / CONFIG)
    _refuse_encoder_decoder(parts.model, config)
    _refuse_absurd(parts.model, config)
    with quiet_transformers():
        model = _loaded(
            parts.model,
            dtype=getattr(torch, precision),
            trust_remote_code=trust_remote_code,
            has_own_code="auto_map" in config,
        )
        context = _context(model.config.get_text_config())
        if parts.adapter is not None:
            model = _with_adapter(model, parts.adapter)
        model = model.to(device).eval()
        vocab_size = _vocabulary_size(model, parts.model, device, ahead=AHEAD[precision])
    logit_bytes = 4 * vocab_size

    def token_losses(tokens: Tensor, counted: Tensor) -> Tensor:
        logits = _logits(model, tokens[:, :-1]).flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        rows = max(1, CHUNK_BYTES[device] // logit_bytes)
        losses = [
            F.cross_entropy(logits[part].float(), targets[part], reduction="none")
            for part in torch.split(counted.flatten().nonzero().squeeze(1), rows)
        ]
        return torch.cat(losses)

    return TextModel(
        token_losses=token_losses,
        encoder=encoder,
        vocab_size=vocab_size,
        context=context,
        tokens_at_once=max(1, min(LOGIT_BYTES[device] // logit_bytes, MOST_TOKENS[device])),
        device=device,
        network=Network(model, partial(_logits, model)),
    )


def _logits(model: Any, ids: Tensor) -> Tensor:
    """Logits (b, t, v) after each id; padding to the right of a text is not masked."""
    # Without a mask, some models warn about ids that could be padding.
    logits: Tensor = model(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
    ).logits
    return logits


def _loaded(
    folder: Path, *, dtype: torch.dtype, trust_remote_code: bool, has_own_code: bool
) -> Any:
    from transformers import AutoModelForCausalLM

    plainly = _plainly(folder)
    try:
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported by name
            **plainly,
        )
    except Exception as error:  # a library of many authors, or the folder's own code
        raise _not_opened(folder, error, has_own_code and not trust_remote_code) from None
    model, report = opened
    _refuse_incomplete(folder, report)
    _refuse_fewer_layers(model, folder, report)
    if not plainly:
        _unmap(model)
    return model


def _plainly(folder: Path) -> dict[str, bool]:
    """The setting of transformers that reads files instead of mapping them; empty without it.

    A file that is mapped into memory and cut short meanwhile ends the process. Reading takes the
    memory of the files twice for a moment, so it is not asked for where that is not there.
    """
    from transformers import modeling_utils

    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    loading = getattr(modeling_utils, "LoadStateDictConfig", None)
    is_known = "disable_mmap" in getattr(loading, "__dataclass_fields__", {})
    return {"disable_mmap": True} if is_known and 2 * size <= memory_budget() else {}


def _unmap(model: Any) -> None:
    """Copy every tensor of a model, so that none is a part of a file any more."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _refuse_absurd(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a config of a far larger model than the weights are, which transformers would make."""
    try:
        stored = [tensor.shape for tensor in open_weights(folder).values()]
    except RankscopeError:
        return  # transformers says what it lacks
    side = max((size for shape in stored for size in shape), default=0)
    for table in (config, *(one for one in config.values() if isinstance(one, Mapping))):
        for names, most in ((SIDES, side), (LAYERS, len(stored))):
            for name in names:
                value = table.get(name)
                if type(value) is int and value > LARGER * most + 64:
                    message = f"its {name} is {value}, and its weights have at most {most}"
                    raise RankscopeError(message, path=folder / CONFIG, reason=NO_MODEL)


def _refuse_incomplete(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse what transformers would make up or ignore: missing weights, or superfluous ones."""
    if mismatched := sorted(report["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        raise RankscopeError(
            f"has the shape {list(stored)}, but {CONFIG} makes it {list(wanted)}"
            + _and_more(len(mismatched)),
            path=folder,
            tensor=name,
        )
    if missing := sorted(report["missing_keys"]):
        raise RankscopeError(
            f"is missing from the weights{_and_more(len(missing))}", path=folder, tensor=missing[0]
        )
    if adapters := sorted(name for name in report["unexpected_keys"] if ".lora_" in name):
        raise RankscopeError(
            f"belongs to an adapter that transformers ignores{_and_more(len(adapters))}: merge it "
            "into the weights, or save it with peft",
            path=folder,
            tensor=adapters[0],
            reason=NO_MODEL,
        )


def _refuse_fewer_layers(model: Any, folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse a config that makes a model of fewer layers than the weights have."""

    def numberless(name: str) -> str:
        return re.sub(r"\d+", "0", name)

    made = {numberless(name) for name, _ in model.named_parameters()}
    if ignored := sorted(one for one in report["unexpected_keys"] if numberless(one) in made):
        raise RankscopeError(
            f"belongs to a layer that {CONFIG} does not make{_and_more(len(ignored))}",
            path=folder,
            tensor=ignored[0],
        )


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _with_adapter(model: Any, folder: Path) -> Any:
    """The model with a PEFT adapter, which is not merged: bfloat16 weights would swallow it."""
    require("peft")
    from peft import PeftConfig, PeftModel

    try:
        if PeftConfig.from_pretrained(str(folder)).is_prompt_learning:
            raise ValueError("it puts tokens before the text instead of changing weights")
        return PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
    except Exception as error:  # or a warning, see `quiet_transformers`
        raise RankscopeError(
            f"cannot be put on its base model: {first_line(error)}", path=folder
        ) from None


def _vocabulary_size(model: Any, folder: Path, device: str, *, ahead: float) -> int:
    """Last axis of the logits; refuses a model whose predictions depend on later tokens.

    Transformers opens encoders such as BERT as if they were causal.
    """
    ids = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 1, 1, 1, 1]], device=device)
    try:
        with torch.inference_mode():
            logits = _logits(model, ids).float()
    except Exception as error:
        raise RankscopeError(
            f"opens, but does not run: {first_line(error)}", path=folder, reason=NO_MODEL
        ) from None
    first, second = logits[:, :4]
    # A model that has diverged gives NaN: a result, not a sign of the wrong kind of model.
    if bool((first - second).abs().max() > ahead * first.abs().max()):
        raise RankscopeError(
            "is not a causal language model: its prediction for a token depends on later tokens",
            path=folder,
            reason=NO_MODEL,
        )
    return int(logits.shape[-1])


def _context(config: Any) -> int:
    stated = (getattr(config, name, None) for name in CONTEXT_NAMES)
    return next((n for n in stated if isinstance(n, int) and n > 0), UNSTATED_CONTEXT)


def _refuse_encoder_decoder(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("is_encoder_decoder"):
        raise RankscopeError(
            f"is an encoder with a decoder (model_type {config.get('model_type')!r}), not a causal "
            "language model: it assigns no probability to a text by itself",
            path=folder,
            reason=NO_MODEL,
        )


def _not_opened(folder: Path, error: Exception, needs_trust: bool) -> RankscopeError:
    if needs_trust:
        return RankscopeError(
            "comes with its own code: read it, then set `trust_remote_code` to let it run",
            path=folder,
            reason=NO_MODEL,
        )
    return RankscopeError(
        f"transformers cannot open it as a causal language model: {first_line(error)}",
        path=folder,
        reason=NO_MODEL,
    )
