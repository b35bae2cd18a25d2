"""Adapters around the linear layers of a model, and the plain model back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import cast, get_args

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankscope.errors import WrongSettingError
from rankscope.relora.adapted_model import (
    Frozen,
    Wrapping,
    adapted,
    draw,
    forget_wrapping,
    is_wrapped,
    keep_wrapping,
    match_weight,
    plain_name,
    wrapped_in,
    wrapping,
)
from rankscope.relora.merging import merge, require_finite
from rankscope.relora.targets import named_for_peft, require_whole, target_layers, weight_shape


def wrap(
    model: nn.Module,
    rank: int,
    *,
    alpha: float | None = None,
    targets: str | Sequence[str] | None = None,
    seed: int = 0,
    frozen: Frozen = "targets",
) -> PeftModel:
    """Give linear layers of a model low-rank adapters; its function stays the same.

    A layer with the weight W then computes ``(W + alpha / rank · B·A) x``, with A random and B
    zero. W is frozen, A and B are trained. A depends only on the seed and the layer's name, so all
    processes of a distributed training draw the same values, and torch's global generators are not
    touched.

    Parameters
    ----------
    model
        Any module with ``nn.Linear`` or transformers' ``Conv1D`` layers; changed in place. Wrap it
        before DDP does, and before you make the optimizer.
    rank
        r; at most the smaller side of every target.
    alpha
        The factor of B·A is ``alpha / rank``. By default ``rank``, which makes it 1.
    targets
        A regular expression that fits whole names; or names, each of which also fits at the end of
        longer ones; or ``all-linear``, for all linear layers but the head. By default the linear
        layers inside the blocks, without the head; in a model without blocks, all.
    seed
        Seed of every A.
    frozen
        ``targets`` trains all else as before: embeddings, norms, biases and head, as ReLoRA does.
        ``all`` trains nothing but the adapters, as LoRA does.

    Returns
    -------
    A PEFT model, whose adapters have the dtype and the device of their layers.

    Raises
    ------
    WrongSettingError
        If no layer fits, the rank is too high, or a target cannot have an adapter: a tied head, a
        layer of another class, or one that is quantised, reparametrised or part of
        ``nn.MultiheadAttention`` or ``nn.TransformerEncoderLayer``. If the model is a single layer,
        or is already in DDP, DataParallel or ``torch.compile``.

    References
    ----------
    E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. V. Lialin et al.,
    "ReLoRA: High-Rank Training Through Low-Rank Updates", ICLR 2024.

    Examples
    --------
    >>> import torch
    >>> from rankscope import relora
    >>> plain = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 4))
    >>> x = torch.ones(1, 6)
    >>> before = plain(x)
    >>> model = relora.wrap(plain, rank=2, alpha=4, seed=1)
    >>> torch.equal(model(x), before)
    True
    >>> sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    52
    """
    _require_settings(rank, alpha, seed, frozen)
    if any(is_wrapped(m) or isinstance(m, BaseTunerLayer) for m in model.modules()):
        raise WrongSettingError("the model has adapters already: `unwrap` it first")
    layers = target_layers(model, targets)
    for name, layer in layers.items():
        require_whole(layer.weight, name)
        if rank > min(shape := weight_shape(layer)):
            message = f"`rank` {rank} exceeds the smaller side of {name}, which is"
            raise WrongSettingError(f"{message} {shape[0]} x {shape[1]}")
    names = [name for name, _ in model.named_modules()]
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    config = LoraConfig(
        r=rank,
        lora_alpha=cast(int, rank if alpha is None else alpha),  # a float will do
        target_modules=named_for_peft(layers, names),
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in layers.values()),
        init_lora_weights=False,
    )
    wrapped = _with_adapters(model, config)
    keep_wrapping(wrapped, Wrapping(seed, frozen, frozenset(trained)))
    for name, made in adapted(wrapped).items():
        match_weight(made)
        draw(made, name, seed=seed, cycle=0)
    if frozen == "targets":
        _train(wrapped, trained)
    return wrapped


def unwrap(model: nn.Module) -> nn.Module:
    """Merge the adapters into their weights and return the plain model.

    Parameters
    ----------
    model
        A model returned by `wrap`, or one that contains it, as DDP does; not to be used afterwards.

    Returns
    -------
    The module that was wrapped, with the same classes and names. It computes the same function as
    ``model``, up to the rounding of the merge; parameters that were trained before `wrap` are
    trainable again.

    Raises
    ------
    RankscopeError
        If a factor holds NaN or infinity. Nothing is changed then.

    Examples
    --------
    >>> import torch
    >>> from rankscope import relora
    >>> model = relora.wrap(torch.nn.Sequential(torch.nn.Linear(6, 8)), rank=2)
    >>> relora.unwrap(model)
    Sequential(
      (0): Linear(in_features=6, out_features=8, bias=True)
    )
    """
    wrapped = wrapped_in(model)
    kept, layers = wrapping(wrapped), adapted(wrapped)
    require_finite(layers)
    for name, layer in layers.items():
        merge(layer, name)
    plain = cast(nn.Module, wrapped.unload())
    if hasattr(plain, "peft_config"):  # older versions of peft leave it, and warn of it later
        del plain.peft_config
    forget_wrapping(wrapped)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad = name in kept.trained
    return plain


def _require_settings(rank: int, alpha: float | None, seed: int, frozen: str) -> None:
    if rank < 1:
        raise WrongSettingError(f"`rank` is {rank}; it must be at least 1")
    if alpha is not None and not 0 < alpha < float("inf"):
        raise WrongSettingError(f"`alpha` is {alpha}; it must be a positive number")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise WrongSettingError(f"`seed` is {seed!r}; it must be a whole number")
    if frozen not in get_args(Frozen):
        raise WrongSettingError(f"`frozen` is {frozen!r}; it must be 'targets' or 'all'")


def _with_adapters(model: nn.Module, config: LoraConfig) -> PeftModel:
    """The PEFT model, made without a draw from the global generators."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), warnings.catch_warnings():
        # It says which way Conv1D is stored, where linear layers are among the targets too.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.simplefilter("ignore", FutureWarning)  # what one of the two libraries still calls
        try:
            made = get_peft_model(model, config, autocast_adapter_dtype=False)
        except (ValueError, NotImplementedError) as error:
            raise WrongSettingError(f"PEFT cannot adapt it: {error}") from error
    return cast(PeftModel, made)


def _train(model: PeftModel, trained: set[str]) -> None:
    """Train again what was trained before, except for the weights that have an adapter."""
    plain = model.get_base_model()
    held = {id(layer.get_base_layer().weight) for layer in adapted(model).values()}
    for name, parameter in plain.named_parameters():
        if plain_name(name) in trained and id(parameter) not in held and ".lora_" not in name:
            parameter.requires_grad = True  # as a method, a lazy one refuses it
