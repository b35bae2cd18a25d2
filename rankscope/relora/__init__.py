"""ReLoRA and LoRA on anybody's torch model: low-rank adapters that are merged and restarted.

    from rankscope import relora                  # needs torch and peft: rankscope[relora]

    model = relora.wrap(model, rank=16, alpha=32, seed=1)    # a PEFT model, the same function
    relora.save(model, "run", step)               # weights, adapters, merges: analyze reads them
    relora.restart(model, optimizer, step=step)   # merge, draw A anew, forget the adapters' moments
    model = relora.unwrap(model)                  # the plain model, with everything merged

`ReLoRACallback` does this in transformers' Trainer, `LightningReLoRACallback` in Lightning's, and
`restart_warmup` is the learning rate's warm-up for a ``LambdaLR``. `load` continues a saved run.

After Lialin et al. 2023, "ReLoRA: High-Rank Training Through Low-Rank Updates". A merge does not
change the function, and nothing of the old adapter survives in the new one or in the optimizer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rankscope.errors import WrongSettingError

if TYPE_CHECKING:
    from rankscope.new_cycle import restart_warmup
    from rankscope.relora.adapted_model import MergedFactors
    from rankscope.relora.lightning_callback import LightningReLoRACallback
    from rankscope.relora.relora_folder import load, save
    from rankscope.relora.restarting import restart
    from rankscope.relora.trainer_callback import ReLoRACallback
    from rankscope.relora.wrapping import unwrap, wrap

_HOMES = {
    "LightningReLoRACallback": "rankscope.relora.lightning_callback",
    "MergedFactors": "rankscope.relora.adapted_model",
    "ReLoRACallback": "rankscope.relora.trainer_callback",
    "load": "rankscope.relora.relora_folder",
    "restart": "rankscope.relora.restarting",
    "restart_warmup": "rankscope.new_cycle",
    "save": "rankscope.relora.relora_folder",
    "unwrap": "rankscope.relora.wrapping",
    "wrap": "rankscope.relora.wrapping",
}
_PACKAGES = ("torch", "peft", "transformers")

__all__ = [
    "LightningReLoRACallback",
    "MergedFactors",
    "ReLoRACallback",
    "load",
    "restart",
    "restart_warmup",
    "save",
    "unwrap",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rankscope.relora' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _PACKAGES:
            raise
        extra = "transformers" if missing == "transformers" else "relora"
        what = f"'rankscope[{extra}]'"
        message = f"relora.{name} needs {missing}, which is not installed: pip install {what}"
        raise WrongSettingError(message) from None


def __dir__() -> list[str]:
    return __all__
