"""Checkpoints for the analysis: files that transformers and peft open as they are.

``model.safetensors`` holds the weights without live adapters, ``adapter/`` the adapters that are
not merged yet; peft loads one on top of the other, which gives the model that was trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from rankscope.durable import write_folder
from rankscope.run_files import (
    CHECKPOINT_FORMAT,
    json_bytes,
    peft_tensors,
    step_name,
    tensor_bytes,
)
from rankscope.training.adapters.cycles import CycleStart
from rankscope.training.adapters.lora_linear import iter_adapters
from rankscope.training.config import AdapterConfig, Config
from rankscope.training.data.corpus import Corpus
from rankscope.training.schedule import Timeline


def write_checkpoint(
    run: Path,
    model: nn.Module,
    *,
    config: Config,
    corpus: Corpus,
    timeline: Timeline,
    step: int,
    starts: Mapping[str, CycleStart],
    gradients: Mapping[str, Tensor],
    validation_loss: float,
) -> None:
    """Write ``checkpoints/step-<step>`` of a run, completely or not at all.

    Parameters
    ----------
    run
        The run's folder.
    model
        The model as it is before the boundary work of this step.
    config, corpus, timeline
        The run, its tokens, and what happens at which step.
    step
        Optimizer steps completed.
    starts
        How the present adapters began, see `Cycles`.
    gradients
        For ``gradients.safetensors``.
    validation_loss
        In nats per token; NaN if it was not measured at this step.
    """
    # Parameters rather than the state dict, which would store tied embeddings twice.
    weights = {name: w for name, w in model.named_parameters() if ".lora_" not in name}
    adapters = dict(iter_adapters(model))
    state = _state(config, timeline, step, validation_loss)
    files = {
        "config.json": json_bytes(hugging_face_config(config, corpus)),
        "model.safetensors": tensor_bytes(weights),
        "gradients.safetensors": tensor_bytes(gradients),
        "state.json": json_bytes({**state, "adapters": starts} if adapters else state),
    }
    if adapters:
        ranks = {name: layer.rank for name, layer in adapters.items()}
        files["adapter/adapter_config.json"] = json_bytes(peft_config(config.adapter, ranks))
        files["adapter/adapter_model.safetensors"] = tensor_bytes(
            peft_tensors({name: (one.lora_A, one.lora_B) for name, one in adapters.items()})
        )
    write_folder(run / "checkpoints" / step_name(step), files, kind=CHECKPOINT_FORMAT)


def hugging_face_config(config: Config, corpus: Corpus) -> dict[str, object]:
    """Describe the model to transformers.

    Version 4 reads ``rope_theta``, version 5 ``rope_parameters``.
    """
    model = config.model
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": corpus.end_of_document,
        "dtype": "float32",
        "eos_token_id": corpus.end_of_document,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.hidden_size,
        "initializer_range": model.initializer_range,
        "intermediate_size": model.intermediate_size,
        "max_position_embeddings": config.batch.sequence_length,
        "mlp_bias": False,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_hidden_layers,
        "num_key_value_heads": model.num_key_value_heads,
        "pad_token_id": None,
        "rms_norm_eps": model.rms_norm_eps,
        "rope_parameters": {"rope_theta": model.rope_theta, "rope_type": "default"},
        "rope_theta": model.rope_theta,
        "tie_word_embeddings": model.tie_word_embeddings,
        "vocab_size": model.vocab_size or corpus.vocab_size,
    }


def peft_config(adapter: AdapterConfig, ranks: Mapping[str, int]) -> dict[str, object]:
    """Describe the adapters to peft, given their ranks by name."""
    return {
        "base_model_name_or_path": "..",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != adapter.rank},
        "target_modules": list(adapter.target_modules),
        "task_type": "CAUSAL_LM",
        "use_rslora": adapter.rank_stabilised,
    }


def _state(
    config: Config, timeline: Timeline, step: int, validation_loss: float
) -> dict[str, object]:
    state: dict[str, object] = {
        "step": step,
        "restarts": timeline.merges_before(step),
        "tokens": step * config.batch.tokens,
        "seed": config.seed,
        # These weights are the end of a phase where a boundary at this step ends it.
        "method": timeline.phase(max(step - 1, 0)).method,
        # No update follows the last checkpoint, so it has the rate of the one before it.
        "learning_rate": timeline.learning_rate(min(step, config.schedule.steps - 1)),
    }
    return state if math.isnan(validation_loss) else {**state, "validation_loss": validation_loss}
