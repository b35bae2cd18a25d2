"""What a run is about to do, in a few lines for its user."""

from __future__ import annotations

from rankscope.training.config import Config
from rankscope.training.data.corpus import Corpus
from rankscope.training.departures import departures
from rankscope.training.parameter_counts import ParameterCounts, parameter_counts
from rankscope.training.schedule import Timeline, timeline

MOST_STEPS = 10  # in a list


def summary(config: Config, corpus: Corpus) -> list[str]:
    """Lines to print before the first step."""
    counts = parameter_counts(config, config.model.vocab_size or corpus.vocab_size)
    return [
        *map(counts_line, counts),
        *([f"initial weights from {config.init}"] if config.init else []),
        schedule_line(config),
        data_line(config, corpus),
        *departure_lines(config),
        f"writing to {config.out}",
    ]


def counts_line(counts: ParameterCounts) -> str:
    """Parameters of a phase in one line."""
    kinds = (
        f"embedding and head {counts.embedding + counts.head:,}{'' if counts.head else ', tied'}"
    )
    if counts.adapters:
        kinds += f", adapters {counts.adapters:,} on {counts.wrapped:,} frozen"
    return f"{counts.method}: {counts.total:,} parameters, {counts.trainable:,} trainable ({kinds})"


def schedule_line(config: Config) -> str:
    """Length, speed and restarts in one line."""
    line, schedule = timeline(config), config.schedule
    restarts = sum(boundary.event == "restart" for boundary in line.boundaries)
    rates = " then ".join(f"{schedule.learning_rate * phase.rate:g}" for phase in line.phases)
    return (
        f"{schedule.steps:,} steps of {config.batch.tokens:,} tokens, "
        f"{restarts} restart{'s'[: restarts != 1]}, learning rate {rates}"
    )


def data_line(config: Config, corpus: Corpus) -> str:
    """Source and number of the tokens, in one line."""
    return (
        f"{config.data.source}: {len(corpus.training):,} tokens to train on, "
        f"{len(corpus.validation):,} to validate on, vocabulary {corpus.vocab_size:,}"
    )


def departure_lines(config: Config) -> list[str]:
    """What differs from the published programs, under a heading; no lines if nothing does."""
    lines = departures(config)
    heading = "Unlike the programs of Lialin et al. 2023 and Weiss et al. 2025"
    return [heading, *(f"  {line}" for line in lines)] if lines else []


def boundary_lines(line: Timeline) -> list[str]:
    """When each phase begins, and at which steps the adapters restart."""
    peak = line.schedule.learning_rate
    lines = [
        f"step {phase.start:,}: {phase.method}, learning rate {peak * phase.rate:g} before decay"
        for phase in line.phases
    ]
    restarts = [f"{b.step:,}" for b in line.boundaries if b.event == "restart"]
    if len(restarts) > MOST_STEPS:
        shown = [*restarts[: MOST_STEPS - 2], "...", restarts[-1]]
    else:
        shown = restarts
    count = f"{len(restarts)} restart{'s'[: len(restarts) != 1]}"
    return [*lines, f"{count}: {', '.join(shown)}"] if restarts else lines
