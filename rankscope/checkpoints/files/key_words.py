"""What the words in a key say: a parameter, an optimizer, a second copy of the weights.

Words are separated by case, digits and signs: ``netG_ema`` has ``net``, ``g`` and ``ema``, while
``schema`` does not contain ``ema``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
PARAMETER = frozenset(
    (
        *("weight", "weights", "kernel", "kernels", "bias", "biases", "param", "params"),
        *("parameter", "parameters", "embedding", "embeddings", "embed", "emb", "wte", "wpe"),
        *("w", "wq", "wk", "wv", "wo", "qkv", "proj", "projection", "linear", "dense", "fc"),
        *("conv", "lora", "unembed"),
    )
)
OPTIMIZER = frozenset(("optim", "optims", "optimizer", "optimizers", "optimiser", "optimisers"))
# Under one of these and the name of a parameter is what an optimizer keeps for it.
STATE = frozenset(("opt", "opts", "opt_state", "state", "states"))
# Names of what optimizers remember of a parameter; no trainer gives one to a weight.
MOMENT = re.compile(
    r"(?:max_)?exp_(?:avg|inf)(?:_\w+)?|momentum_buffer|square_avg|acc_delta|grad_avg"
    r"|master_(?:param|weight)s?"
)
GRADIENT = frozenset(("grad", "grads", "gradient", "gradients"))
AVERAGE = frozenset(
    ("ema", "emas", "averaged", "average", "avg", "swa", "shadow", "polyak", "smoothed")
)
COPY = (
    AVERAGE
    | GRADIENT
    | frozenset(
        (
            *("target", "targets", "teacher", "momentum", "running", "slow", "lookahead", "old"),
            *("prev", "previous", "best", "initial", "init", "reference", "ref", "backup", "copy"),
        )
    )
)
# Keys under which trainers save the model, the preferred first.
MODEL_KEYS = (
    *("model", "state_dict", "model_state_dict", "module", "_model", "weights", "params"),
    *("ema", "model_ema", "ema_model", "ema_state_dict"),
)
FILES = frozenset(("model", "weights", "weight", "params", "parameters", "checkpoint", "ckpt"))
INDEXED = re.compile(r".+[./]\d+[./].+")
# Names that differ in a number or a counting letter belong to several networks: qf1 and qf2.
COUNTED = re.compile(r"\d+|(?<![A-Za-z])[a-dx-z](?![a-z])|(?<![A-Z])[A-DX-Z](?![a-z])")
PAIRED = re.compile(r"\d+|(?<![A-Za-z])[a-z]{2}(?![a-z])|(?<![A-Z])[A-Z]{2}(?![a-z])")


@lru_cache(maxsize=2**14)
def words_of(name: str) -> frozenset[str]:
    """Words in a name, in lower case."""
    return frozenset(word.lower() for word in WORD.findall(name))


def is_parameter_name(name: str) -> bool:
    """Whether a name is one that a model gives to a parameter.

    The price of an error: a table of numbers is measured (``fc`` for a forecast), or a network
    whose names say nothing is reported and not measured.
    """
    return bool(words_of(name) & PARAMETER) or INDEXED.fullmatch(name) is not None


def are_of_model(names: Iterable[str], file: str) -> bool:
    """Whether arrays are those of a model, by their names or by that of their file.

    Logs and data are saved in the same way: ``evaluations.npz`` with ``timesteps`` and ``results``.
    The price of an error is a model whose names say nothing, in a file whose name says nothing; a
    line reports that it was left out.
    """
    return bool(words_of(file) & FILES) or any(map(is_parameter_name, names))


def is_optimizer_key(key: str) -> bool:
    """Whether a key by itself says that an optimizer is under it."""
    return bool(words_of(key) & OPTIMIZER)


def is_copy_key(key: str) -> bool:
    """Whether a key is one that trainers use for averages, targets and gradients."""
    return bool(words_of(key) & COPY)


def are_siblings(one: str, other: str) -> bool:
    """Whether two keys name numbered or lettered networks: ``G_A`` and ``G_B``."""
    if one == other:
        return False
    if COUNTED.sub("#", one) == COUNTED.sub("#", other):
        return True
    return PAIRED.sub("#", one) == PAIRED.sub("#", other) and sorted(one) == sorted(other)
