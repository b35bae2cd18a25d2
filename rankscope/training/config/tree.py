"""The whole configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from rankscope.errors import WrongSettingError
from rankscope.training.config.adapter_settings import AdapterConfig, ReLoRAConfig
from rankscope.training.config.checks import at_least, one_of
from rankscope.training.config.learning import (
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
)
from rankscope.training.config.schedule_settings import (
    LOW_RANK_METHODS,
    LogConfig,
    PhaseMethod,
    PhasesConfig,
    ScheduleConfig,
)

Method = PhaseMethod | Literal["phases"]
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Config:
    """A whole training run.

    It holds everything that influences the trained weights, so that the stored ``config.toml`` of a
    run, the data and the program are enough to train it again.
    """

    method: Method = "full"
    out: str = "ckpts/run"
    init: str = ""  # folder of a Hugging Face Llama model to start from; empty: drawn by the seed
    seed: int = 1
    device: Device = "cpu"
    precision: Precision = "float32"  # of the forward pass; parameters are always float32
    compile: bool = False  # torch.compile
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    relora: ReLoRAConfig = field(default_factory=ReLoRAConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    phases: PhasesConfig = field(default_factory=PhasesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        one_of("method", self.method, (*get_args(PhaseMethod), "phases"))
        one_of("device", self.device, get_args(Device))
        one_of("precision", self.precision, get_args(Precision))
        at_least("seed", self.seed, 0)
        self._check_phases()
        self._check_restarts()
        self._check_ranks()

    @property
    def phase_methods(self) -> tuple[PhaseMethod, ...]:
        """Methods in order; a run of one method is one phase."""
        return self.phases.methods if self.method == "phases" else (self.method,)

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained at any time."""
        return any(method in LOW_RANK_METHODS for method in self.phase_methods)

    def _check_phases(self) -> None:
        if (self.method == "phases") != bool(self.phases.methods):
            if self.method == "phases":
                raise WrongSettingError(
                    "method = 'phases' needs phases.methods, such as ['full', 'relora']"
                )
            raise WrongSettingError(
                f"phases.methods = {list(self.phases.methods)} needs method = 'phases', but "
                f"method = {self.method!r}: leave one of them out"
            )
        if sum(self.phases.lengths) >= self.schedule.steps:
            raise WrongSettingError(
                f"phases.lengths = {list(self.phases.lengths)} leave no steps of "
                f"schedule.steps = {self.schedule.steps} for the last phase"
            )
        begins_full = len(self.phase_methods) > 1 and self.phase_methods[0] == "full"
        if self.phases.switch != "steps" and not begins_full:
            raise WrongSettingError(
                f"phases.switch = {self.phases.switch!r} ends a first phase of full rank, but "
                f"phases.methods = {list(self.phases.methods)}"
            )

    def _check_restarts(self) -> None:
        every, restarts = self.schedule.restart_every, "relora" in self.phase_methods
        if restarts and every == 0:
            raise WrongSettingError(
                "ReLoRA needs schedule.restart_every, the number of steps of a cycle; for adapters "
                "without restarts set method = 'lora'"
            )
        if every and not restarts:
            raise WrongSettingError(
                f"schedule.restart_every = {every} contradicts method = {self.method!r}, which "
                "never restarts: leave one of them out"
            )
        low_rank = [method for method in self.phase_methods if method in LOW_RANK_METHODS]
        if self.relora.published.zero_factors and low_rank == ["lora"]:
            raise WrongSettingError(
                "relora.published.zero_factors keeps adapters at zero until the first restart, and "
                "here there is none, so they would learn nothing: set it to false"
            )
        if self.relora.published.zero_rate_step and every == 1:
            raise WrongSettingError(
                "relora.published.zero_rate_step with schedule.restart_every = 1 would make every "
                "learning rate 0"
            )

    def _check_ranks(self) -> None:
        if self.relora.rank_policy == "fixed":
            return
        if not self.adapter.rank_stabilised:
            raise WrongSettingError(
                f"relora.rank_policy = {self.relora.rank_policy!r} changes the rank, and with it "
                "alpha / rank, the size of every step: set adapter.rank_stabilised = true"
            )
        if "relora" not in self.phase_methods:
            raise WrongSettingError(
                f"relora.rank_policy = {self.relora.rank_policy!r} chooses ranks at restarts, "
                f"but method = {self.method!r} never restarts"
            )
