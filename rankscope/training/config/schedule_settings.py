"""Settings of what happens when, in optimizer steps: learning rate, restarts, phases, saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rankscope.errors import WrongSettingError
from rankscope.training.config.checks import at_least, not_negative, one_of, positive

Decay = Literal["cosine", "linear", "constant"]
PhaseMethod = Literal["full", "relora", "lora"]
Switch = Literal["steps", "stable_rank", "effective_rank"]
LOW_RANK_METHODS = ("relora", "lora")


@dataclass(frozen=True)
class ScheduleConfig:
    """Length, learning rate and restarts."""

    steps: int = 1000
    learning_rate: float = 4e-3
    warmup_steps: int = 40
    decay: Decay = "cosine"  # of the learning rate after the warm-up
    minimum_ratio: float = 0.1  # share of the learning rate at the end of the decay
    horizon: int = 0  # step at which the decay ends; 0: the last
    restart_every: int = 0  # steps of a ReLoRA cycle; 0: no restarts
    restart_warmup_steps: int = 10

    def __post_init__(self) -> None:
        at_least("schedule.steps", self.steps, 1)
        positive("schedule.learning_rate", self.learning_rate)
        one_of("schedule.decay", self.decay, get_args(Decay))
        for name in ("warmup_steps", "horizon", "restart_every", "restart_warmup_steps"):
            at_least(f"schedule.{name}", getattr(self, name), 0)
        if not 0 <= self.minimum_ratio <= 1:
            raise WrongSettingError(
                f"schedule.minimum_ratio = {self.minimum_ratio} must be in [0, 1]"
            )
        if self.warmup_steps >= self.steps:
            raise WrongSettingError(
                f"schedule.warmup_steps = {self.warmup_steps} must be less than "
                f"schedule.steps = {self.steps}"
            )
        if 0 < self.horizon < self.steps:
            raise WrongSettingError(
                f"schedule.horizon = {self.horizon} must be 0, or at least "
                f"schedule.steps = {self.steps}"
            )


@dataclass(frozen=True)
class PhasesConfig:
    """Successive methods, for ``method = "phases"``.

    ``["full", "relora"]`` is a warm start, ``["relora", "full"]`` a full-rank finish.
    """

    methods: tuple[PhaseMethod, ...] = ()
    lengths: tuple[int, ...] = ()  # steps of each phase except the last, which has the rest
    rates: tuple[float, ...] = ()  # factor of the learning rate in each phase; by default 1
    switch: Switch = "steps"  # or end the first phase once this rank has settled, see `settling`
    probe_every: int = 50  # steps between two looks at that rank
    tolerance: float = 0.05  # a smaller relative change counts as none
    earliest: int = 0  # the first phase does not end before this step

    def __post_init__(self) -> None:
        for method in self.methods:
            one_of("phases.methods", method, get_args(PhaseMethod))
        for length in self.lengths:
            at_least("phases.lengths", length, 1)
        for rate in self.rates:
            positive("phases.rates", rate)
        if self.methods and len(self.lengths) != len(self.methods) - 1:
            raise WrongSettingError(
                f"phases.lengths = {list(self.lengths)} must have an entry for each of "
                f"phases.methods = {list(self.methods)} except the last"
            )
        if self.rates and len(self.rates) != len(self.methods):
            raise WrongSettingError(
                f"phases.rates = {list(self.rates)} must have an entry for each of "
                f"phases.methods = {list(self.methods)}"
            )
        one_of("phases.switch", self.switch, get_args(Switch))
        at_least("phases.probe_every", self.probe_every, 1)
        at_least("phases.earliest", self.earliest, 0)
        not_negative("phases.tolerance", self.tolerance)


@dataclass(frozen=True)
class LogConfig:
    """What is measured and kept on the way; none of it changes the weights."""

    log_every: int = 10
    eval_every: int = 125
    save_every: int = 125
    save_log_spaced: bool = False  # also at steps 1, 2, 4, 8, ... below save_every
    save_before_restarts: bool = True  # also before each merge and each change of phase
    keep_last: int = 0  # how many of the latest checkpoints to keep; 0: all
    keep_every: int = 0  # checkpoints at multiples of it are always kept; 0: no such rule
    validation_tokens: int = 65536
    probe_sequences: int = 32  # for the gradients, and for the loss before and after a merge
    blimp: str = ""  # minimal pairs to judge: a folder, zip or JSONL file; empty: none
    blimp_pairs: int = 100  # the first ones of each paradigm, at most this many; 0: all
    blimp_every: int = 0  # steps between two judgements; 0: at each validation
    tensorboard: bool = False  # also write RUN/tensorboard
    wandb: str = ""  # also log to this Weights & Biases project

    def __post_init__(self) -> None:
        for name in (
            "log_every",
            "eval_every",
            "save_every",
            "validation_tokens",
            "probe_sequences",
        ):
            at_least(f"log.{name}", getattr(self, name), 1)
        for name in ("keep_last", "keep_every", "blimp_pairs", "blimp_every"):
            at_least(f"log.{name}", getattr(self, name), 0)

    @property
    def blimp_steps(self) -> int:
        """Steps between two judgements of the minimal pairs."""
        return self.blimp_every or self.eval_every
