"""A run before it starts, as text: parameters, memory, schedule, disk, time. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap

import torch

from rankscope.dry_run.schedule_chart import schedule_chart
from rankscope.dry_run.size import MemoryEstimate, disk_estimate, memory_estimate, saved_steps
from rankscope.dry_run.step_times import (
    StepTime,
    busy_line,
    device_memory,
    measured_step,
    operations_per_token,
)
from rankscope.errors import RankscopeError, require_folder
from rankscope.training.announcement import (
    boundary_lines,
    data_line,
    departure_lines,
    schedule_line,
)
from rankscope.training.config import Config
from rankscope.training.data.corpus import load_corpus
from rankscope.training.minimal_pairs_probe import MinimalPairsProbe, open_minimal_pairs
from rankscope.training.parameter_counts import ParameterCounts, parameter_counts
from rankscope.training.run_folder.start import find_start
from rankscope.training.schedule import timeline

TIMING_SECONDS = 10.0
WIDTH = 100  # characters of a line
REFERENCE = 1e14  # operations per second, where nothing is timed
Counts = tuple[ParameterCounts, ...]


def iter_dry_run(config: Config, *, timing_seconds: float = TIMING_SECONDS) -> Iterator[str]:
    """Yield lines of at most 100 characters.

    Parameters
    ----------
    config
        The run. Its data are opened only if ``model.vocab_size`` is left to them, or if minimal
        pairs need their tokenizer.
    timing_seconds
        About how long the timing of real steps may take; 0: nothing is timed.

    Raises
    ------
    WrongSettingError
        If the rank exceeds what a layer can have, or a file is where the run is to be.
    RankscopeError
        If the data or the minimal pairs cannot be read.
    """
    require_folder(config.out)
    rows, about_data = config.model.vocab_size, [f"{config.data.source} (not opened)"]
    pairs = None
    if not rows or config.log.blimp:
        corpus = load_corpus(config.data, config.batch)
        rows, about_data = rows or corpus.vocab_size, [data_line(config, corpus)]
        if pairs := open_minimal_pairs(config, corpus):
            about_data.append(pairs.description)
    counts = parameter_counts(config, rows)
    yield from (f"{config.method} into {config.out}", *about_data, schedule_line(config))
    yield from _section("Parameters", _parameter_lines(counts))
    yield from _section("Memory", _memory_lines(config, counts))
    yield from _section("Learning rate", _schedule_lines(config))
    yield from _section("Disk", _disk_lines(config, counts))
    yield from _section("Time", _time_lines(config, counts, rows, pairs, seconds=timing_seconds))
    for lines in (departure_lines(config), _refusal(config)):
        if lines:
            yield from ("", *lines)


def _refusal(config: Config) -> list[str]:
    """Why the run could not start in its folder as it is; no lines if it could."""
    try:
        find_start(config, resume=True)
    except RankscopeError as error:
        return wrap(f"This run would not start: {error}", WIDTH, subsequent_indent="  ")
    return []


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield from ("", title, *(f"  {line}".rstrip() for line in lines))


def _parameter_lines(counts: Counts) -> list[str]:
    kinds = {kind: kind for kind in ("embedding", "head", "norms", "projections")}
    if any(one.adapters for one in counts):
        kinds |= {"wrapped": "  of them frozen", "adapters": "adapters"}
    kinds |= {kind: kind for kind in ("total", "trainable")}
    rows = [("", *(one.method for one in counts))]
    for kind, label in kinds.items():
        rows.append((label, *(f"{getattr(one, kind):,}" for one in counts)))
    return _columns(rows)


def _memory_lines(config: Config, counts: Counts) -> list[str]:
    batch = config.batch
    size = {"sequences": batch.sequences_at_once, "sequence_length": batch.sequence_length}
    memory = [memory_estimate(config, one, **size) for one in counts]
    labels = {
        "parameters": "parameters, float32",
        "gradients": "gradients",
        "gradients_at_saves": "  at saves, of all projections",
        "moments": "Adam's moments",
        "activations": f"activations of {_counted(batch.sequences_at_once, 'sequence')}",
        "logits": "logits and loss",
        "total": "largest sum at a time",
    }
    if all(one.gradients_at_saves <= one.gradients for one in memory):
        del labels["gradients_at_saves"]
    rows = [("", *(one.method for one in counts))]
    for name, label in labels.items():
        rows.append((label, *(_bytes(getattr(one, name)) for one in memory)))
    return [*_columns(rows), _room(config, memory)]


def _room(config: Config, memory: Sequence[MemoryEstimate]) -> str:
    """What the device has, compared with what is needed."""
    if config.device == "cuda" and not torch.cuda.is_available():
        return "device = 'cuda', but torch finds no GPU here"
    room, needed = device_memory(config.device), max(one.total for one in memory)
    what = "free on the GPU" if config.device == "cuda" else "in this machine"
    advice = ": too little, lower batch.micro_sequences" if needed > room else ""
    return f"{_bytes(room)} {what}{advice}"


def _schedule_lines(config: Config) -> list[str]:
    line = timeline(config)
    early = config.phases.switch != "steps"
    note = [f"the first phase may end earlier, by {config.phases.switch}"] if early else []
    return [*schedule_chart(line), *boundary_lines(line), *note]


def _disk_lines(config: Config, counts: Counts) -> list[str]:
    disk, saved = disk_estimate(config, counts), len(saved_steps(config))
    merges = f"merges {_bytes(disk.merges)}, " if disk.merges else ""
    return [
        f"{_bytes(disk.total)}: {_counted(saved, 'checkpoint')} {_bytes(disk.checkpoints)}, "
        f"{merges}states to resume from {_bytes(disk.states)}"
    ]


def _time_lines(
    config: Config, counts: Counts, rows: int, pairs: MinimalPairsProbe | None, *, seconds: float
) -> list[str]:
    steps, batch = config.schedule.steps, config.batch
    operations = sum(one.steps * batch.tokens * operations_per_token(config, one) for one in counts)
    lines = [f"{steps * batch.tokens:,} tokens, {operations:.1e} floating-point operations"]
    measured = _measured(config, counts, rows, seconds)
    timings = [timing for one in counts if (timing := measured.get(bool(one.adapters)))]
    if len(timings) < len(counts):
        guess, speed = _duration(operations / REFERENCE), f"{REFERENCE / 1e12:.0f} TFLOP/s"
        return [*lines, f"not timed here; {guess} at {speed}, which small models do not reach"]
    lines += [_timing_line(config, *pair) for pair in zip(counts, timings, strict=True)]
    total = sum(
        one.steps * timing.step_seconds(batch) for one, timing in zip(counts, timings, strict=True)
    )
    lines.append(f"{_duration(total)} in total on this device, without measurements and saves")
    if pairs is not None:
        judging = max(timing.forward_seconds(pairs.tokens) for timing in timings)
        lines.append(
            f"minimal pairs, {pairs.tokens:,} tokens: about {_duration(judging)} each time"
        )
    busy = busy_line(config.device)
    return lines if busy is None else [*lines, busy]


def _measured(
    config: Config, counts: Counts, rows: int, seconds: float
) -> dict[bool, StepTime | None]:
    """Time of a step without and with adapters, as the run needs; empty if nothing is timed."""
    kinds = {bool(one.adapters): one for one in counts}
    return {
        has_adapters: measured_step(config, one, rows, seconds=seconds / len(kinds))
        for has_adapters, one in kinds.items()
        if seconds
    }


def _timing_line(config: Config, counts: ParameterCounts, timing: StepTime) -> str:
    batch, step = config.batch, timing.step_seconds(config.batch)
    micro = batch.sequences_at_once * batch.sequence_length
    scaled = "" if timing.tokens == micro else f", scaled to {micro:,}"
    return (
        f"{counts.method}: {_duration(step)} per step, {batch.tokens / step:,.0f} tokens/s "
        f"(timed with {timing.tokens:,} tokens at once{scaled})"
    )


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as aligned text, the first column flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s'[: number != 1]}"


def _bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{_short(number / size)} {unit}"
    return f"{_short(number / 1e3)} kB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds)} s" if seconds >= 1 else f"{_short(1000 * seconds)} ms"


def _short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"
