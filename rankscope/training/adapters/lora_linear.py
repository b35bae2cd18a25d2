"""Low-rank adapters: wrap, merge, reset, unwrap.

With the frozen weight W (out, in), A ``lora_A`` (r, in) and B ``lora_B`` (out, r), the layer
computes ``(W + scale * B @ A) x``. After Lialin et al. 2023, "ReLoRA: High-Rank Training Through
Low-Rank Updates", with restarts as the paper describes them: a merge does not change the function,
and nothing of the old adapter survives in the new one or in the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from rankscope.errors import WrongSettingError
from rankscope.training.adapters.low_rank_linear import low_rank_linear


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank delta.

    Parameters
    ----------
    weight
        W, (out, in). This very parameter is kept, and no longer trained.
    a
        The first A, (r, in); see `reset`.
    scale
        Factor of B·A. It is applied in `factors` and nowhere else, so that the forward pass and
        the merge cannot disagree on it.
    """

    def __init__(self, weight: nn.Parameter, a: Tensor, *, scale: float) -> None:
        super().__init__()
        self.weight = weight.requires_grad_(False)
        self.lora_A = nn.Parameter(weight.new_empty(0, weight.shape[1]))
        self.lora_B = nn.Parameter(weight.new_empty(weight.shape[0], 0))
        self.reset(a, scale=scale)

    @property
    def rank(self) -> int:
        """The largest rank that the delta can have."""
        return self.lora_A.shape[0]

    @property
    def merged_scale(self) -> float:
        """Factor of B·A in what a merge adds, as it is recorded."""
        return self.scale

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``(scale * B, A)``, whose product is the delta."""
        return self.scale * self.lora_B.to(dtype), self.lora_A.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(W + delta) x``."""
        return low_rank_linear(x, self.weight, *self.factors(self.lora_A.dtype))

    def delta(self) -> Tensor:
        """Weight that the adapter adds, (out, in), in float64."""
        left, right = self.factors(torch.float64)
        return left @ right

    @torch.no_grad()
    def merge(self) -> None:
        """Add the delta to W, rounding once; the adapter stays as it is."""
        self.weight.copy_(self.weight.double() + self.delta())

    @torch.no_grad()
    def reset(self, a: Tensor, *, scale: float) -> None:
        """Start an adapter: the given A, and B zero.

        With B = 0 the delta is zero but the gradient of B is not. If A were zero too, both
        gradients would vanish and the adapter would never learn. If the rank stays the same, the
        parameters are changed in place, so that references to them stay valid.
        """
        self.scale = scale
        if a.shape != self.lora_A.shape:
            self.lora_A = nn.Parameter(self.weight.new_empty(a.shape))
            self.lora_B = nn.Parameter(self.weight.new_empty(self.weight.shape[0], a.shape[0]))
        self.lora_A.copy_(a)
        self.lora_B.zero_()


MakeLayer = Callable[[nn.Parameter, Tensor, float], LoRALinear]


def target_shapes(model: nn.Module, target_modules: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(out, in) of every layer that has an adapter or can get one, by name."""
    return {
        name: (layer.weight.shape[0], layer.weight.shape[1])
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | LoRALinear) and name.rpartition(".")[2] in target_modules
    }


def require_ranks(ranks: Mapping[str, int], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise `WrongSettingError` if a rank exceeds what the delta of its layer can have."""
    for name, rank in ranks.items():
        if rank > min(shapes[name]):
            raise WrongSettingError(
                f"adapter.rank = {rank} exceeds the smaller side of {name}, "
                f"which is {' x '.join(map(str, shapes[name]))}"
            )


def wrap(model: nn.Module, name: str, a: Tensor, *, scale: float, make: MakeLayer) -> None:
    """Give the layer of this name an adapter, or a new one; its function stays the same.

    Raises
    ------
    WrongSettingError
        If the layer is not a plain linear one without a bias, which this would damage.
    """
    layer = model.get_submodule(name)
    if isinstance(layer, LoRALinear):
        layer.reset(a, scale=scale)
        return
    if type(layer) is not nn.Linear or layer.bias is not None:
        kind = type(layer).__name__ if type(layer) is not nn.Linear else "Linear with a bias"
        message = f"{name} is of the kind {kind}, which the trainer's adapters would damage"
        raise WrongSettingError(f"{message}: rankscope.relora wraps other models")
    weight = layer.get_parameter("weight")
    if sum(weight is p for _, p in model.named_parameters(remove_duplicate=False)) > 1:
        message = f"{name} shares its weight with another module, which a merge would change too"
        raise WrongSettingError(message)
    _replace(model, name, make(nn.Parameter(weight.detach()), a, scale))


def unwrap(model: nn.Module) -> None:
    """Turn every wrapped layer into a plain, trained one; its adapter is discarded."""
    for name, layer in list(iter_adapters(model)):
        out_features, in_features = layer.weight.shape
        plain = nn.Linear(in_features, out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.weight.detach())
        _replace(model, name, plain)


def iter_adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Every wrapped layer with its name, such as ``model.layers.0.self_attn.q_proj``."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            yield name, layer


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that the optimizer changes."""
    return [p for p in model.parameters() if p.requires_grad]


def renew(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Let the optimizer train the present trained parameters of the model.

    Moments and steps of the adapters are deleted, since they belong to the previous adapters; those
    of all other parameters stay as they are. Zeroed moments with the old step count would have no
    bias correction, and pruned moments would make single entries jump.
    """
    trained = trained_parameters(model)
    adapters = {p for _, layer in iter_adapters(model) for p in (layer.lora_A, layer.lora_B)}
    optimizer.param_groups[0]["params"] = trained
    continuing = set(trained) - adapters
    for parameter in [p for p in optimizer.state if p not in continuing]:
        del optimizer.state[parameter]


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, layer)
