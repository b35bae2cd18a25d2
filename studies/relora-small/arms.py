"""The arms, scales and runs of the study, read from ``arms.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Arm:
    """A method: the preset with some settings changed."""

    name: str
    label: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder, such as ``relora-8e-3-seed1``."""
        return f"{self.arm}-{rate_name(self.rate)}-seed{self.seed}"


@dataclass(frozen=True)
class Scale:
    """A model, a text and a length, with the learning rates to try."""

    name: str
    about: str
    config: Path
    changes: tuple[str, ...]
    seeds: tuple[int, ...]
    rates: Mapping[str, Sequence[float] | str]  # of each arm; or the arm whose best rate is taken
    text: str = ""  # a file to prepare; empty: the preset's own
    vocabulary: int = 0
    documents: int = 0  # how many held-out documents are scored at the end; 0: all

    @property
    def checkpoints(self) -> Path:
        """Folder of its runs."""
        return Path("ckpts/study") / self.name

    @property
    def results(self) -> Path:
        """Folder of what rankscope measured."""
        return Path("results/study") / self.name


def rate_name(rate: float) -> str:
    """A learning rate as in names of runs: ``16e-3``."""
    return f"{1000 * rate:g}e-3"


def read_arms(path: Path = HERE / "arms.toml") -> dict[str, Arm]:
    """All arms, in the order of the file."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))["arms"]
    return {name: Arm(name, entry["label"], tuple(entry["set"])) for name, entry in table.items()}


def read_scale(name: str, path: Path = HERE / "arms.toml") -> Scale:
    """One scale; `KeyError` names those that there are."""
    table: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["scales"]
    if name not in table:
        raise KeyError(f"no scale {name!r}: choose from {', '.join(table)}")
    entry = table[name]
    return Scale(
        name=name,
        about=entry["about"],
        config=Path(os.path.relpath(ROOT / entry["config"])),
        changes=tuple(entry["set"]),
        seeds=tuple(entry["seeds"]),
        rates=entry["rates"],
        text=entry.get("text", ""),
        vocabulary=entry.get("vocabulary", 0),
        documents=entry.get("documents", 0),
    )


def iter_sweep(scale: Scale) -> Iterator[Run]:
    """Runs of the arms that list their rates, with the first seed.

    The middle rates of all arms come first, so that a study cut short still compares all of them.
    """
    listed = {
        arm: sorted(rates) for arm, rates in scale.rates.items() if not isinstance(rates, str)
    }
    longest = max(map(len, listed.values()), default=0)
    for distance in range(longest):
        for arm, rates in listed.items():
            order = sorted(rates, key=lambda rate: abs(rates.index(rate) - len(rates) // 2))
            if distance < len(order):
                yield Run(arm, order[distance], scale.seeds[0])


def iter_beyond(runs: Sequence[Run], best: Mapping[str, float], scale: Scale) -> Iterator[Run]:
    """One more rate for every arm whose best is the lowest or the highest that was tried."""
    for arm, rates in scale.rates.items():
        tried = sorted({run.rate for run in runs if run.arm == arm})
        if len(rates) < 3 or isinstance(rates, str):
            continue
        if best[arm] == tried[0]:
            yield Run(arm, tried[0] / 2, scale.seeds[0])
        elif best[arm] == tried[-1]:
            yield Run(arm, tried[-1] * 2, scale.seeds[0])


def iter_dependent(scale: Scale, best: Mapping[str, float]) -> Iterator[Run]:
    """Runs of the arms whose rates are those of another arm: its best, and half of that."""
    for arm, other in scale.rates.items():
        if isinstance(other, str):
            for rate in (best[other], best[other] / 2):
                yield Run(arm, rate, scale.seeds[0])


def iter_seeds(scale: Scale, best: Mapping[str, float]) -> Iterator[Run]:
    """Every arm at its best rate with all seeds but the first, seed by seed."""
    for seed in scale.seeds[1:]:
        for arm in scale.rates:
            yield Run(arm, best[arm], seed)
