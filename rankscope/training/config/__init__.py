"""The settings of a training run: a tree of frozen dataclasses that check themselves.

A setting has a dotted name, such as ``schedule.steps``. Those of ``model`` have the names of a
Hugging Face ``config.json``.
"""

from rankscope.training.config.adapter_settings import (
    PROGRAMS,
    PROJECTIONS,
    AdapterConfig,
    PublishedConfig,
    RankPolicy,
    ReLoRAConfig,
    Subspace,
)
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
from rankscope.training.config.tree import Config

__all__ = [
    "LOW_RANK_METHODS",
    "PROGRAMS",
    "PROJECTIONS",
    "AdapterConfig",
    "BatchConfig",
    "Config",
    "DataConfig",
    "LogConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhaseMethod",
    "PhasesConfig",
    "PublishedConfig",
    "RankPolicy",
    "ReLoRAConfig",
    "ScheduleConfig",
    "Subspace",
]
