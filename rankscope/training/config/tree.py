"""The whole configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from rankscope.errors import RankscopeError
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
    PHASE_METHODS,
    LogConfig,
    PhasesConfig,
    ScheduleConfig,
)

METHODS = (*PHASE_METHODS, "phases")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Config:
    """A whole training run.

    Everything that influences the trained weights stands here, so that the stored ``config.toml``
    of a run, the data and the program are enough to train it again.
    """

    method: str = "full"
    out: str = "ckpts/run"
    seed: int = 1
    device: str = "cpu"
    precision: str = "float32"  # of the forward pass; parameters are float32 in any case
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
        one_of("method", self.method, METHODS)
        one_of("device", self.device, DEVICES)
        one_of("precision", self.precision, PRECISIONS)
        at_least("seed", self.seed, 0)
        self._check_phases()
        self._check_restarts()
        self._check_ranks()

    @property
    def phase_methods(self) -> tuple[str, ...]:
        """Methods one after another; a run of one method is one phase."""
        return self.phases.methods if self.method == "phases" else (self.method,)

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained at any time."""
        return any(method in LOW_RANK_METHODS for method in self.phase_methods)

    def _check_phases(self) -> None:
        if (self.method == "phases") != bool(self.phases.methods):
            need = "needs some" if self.method == "phases" else "has none: set method = 'phases'"
            raise RankscopeError(
                f"phases.methods = {list(self.phases.methods)} does not fit "
                f"method = {self.method!r}, which {need}"
            )
        if sum(self.phases.lengths) >= self.schedule.steps:
            raise RankscopeError(
                f"phases.lengths = {list(self.phases.lengths)} leave nothing of "
                f"schedule.steps = {self.schedule.steps} to the last phase"
            )
        begins_full = len(self.phase_methods) > 1 and self.phase_methods[0] == "full"
        if self.phases.switch != "steps" and not begins_full:
            raise RankscopeError(
                f"phases.switch = {self.phases.switch!r} ends a first phase that is full rank, "
                f"but phases.methods = {list(self.phases.methods)}"
            )

    def _check_restarts(self) -> None:
        every, restarts = self.schedule.restart_every, "relora" in self.phase_methods
        if restarts != (every > 0):
            need = "needs a positive one" if restarts else "never restarts: set it 0"
            raise RankscopeError(
                f"schedule.restart_every = {every} does not fit method = {self.method!r}, "
                f"which {need}"
            )
        if self.relora.published.zero_rate_step and every == 1:
            raise RankscopeError(
                "relora.published.zero_rate_step with schedule.restart_every = 1 would make every "
                "learning rate 0"
            )

    def _check_ranks(self) -> None:
        if self.relora.rank_policy == "fixed":
            return
        if not self.adapter.rank_stabilised:
            raise RankscopeError(
                f"relora.rank_policy = {self.relora.rank_policy!r} changes the rank, and alpha / "
                "rank with it the size of every step: set adapter.rank_stabilised = true"
            )
        if "relora" not in self.phase_methods:
            raise RankscopeError(
                f"relora.rank_policy = {self.relora.rank_policy!r} chooses ranks at restarts, "
                f"which method = {self.method!r} has not"
            )
