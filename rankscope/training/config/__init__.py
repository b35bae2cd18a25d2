"""What a training run is told: a tree of frozen dataclasses that check themselves.

A setting is known by its dotted name, as ``schedule.steps``. Those of ``model`` are named as in a
Hugging Face ``config.json``.
"""

from rankscope.training.config.adapter_settings import (
    PROJECTIONS,
    AdapterConfig,
    PublishedConfig,
    ReLoRAConfig,
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
    PhasesConfig,
    ScheduleConfig,
)
from rankscope.training.config.tree import Config

__all__ = [
    "LOW_RANK_METHODS",
    "PROJECTIONS",
    "AdapterConfig",
    "BatchConfig",
    "Config",
    "DataConfig",
    "LogConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhasesConfig",
    "PublishedConfig",
    "ReLoRAConfig",
    "ScheduleConfig",
]
