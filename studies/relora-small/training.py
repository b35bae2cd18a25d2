"""Training the study's runs, several side by side, and only those that are not finished."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from arms import Arm, Run, Scale, rate_name
from rankscope.durable import write_file
from rankscope.training.config_file import load_config

DIVERGED = 6  # exit code of a run whose loss was not finite: a result, and not trained again


def train_all(runs: Iterable[Run], scale: Scale, arms: Mapping[str, Arm], *, jobs: int) -> None:
    """Train the runs, ``jobs`` at a time with one thread each, and print a line for each."""
    todo = [run for run in runs if not _is_done(run, scale, arms)]
    with ThreadPoolExecutor(jobs) as pool:
        trained = {pool.submit(_train, run, scale, arms): run for run in todo}
        try:
            for count, future in enumerate(as_completed(trained), start=1):
                loss = future.result()
                print(f"{count}/{len(todo)}  {trained[future].name}  loss {loss:.4f}", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def best_rates(runs: Iterable[Run], scale: Scale) -> dict[str, float]:
    """The learning rate of each arm with the lowest last validation loss."""
    found: dict[str, tuple[float, float]] = {}
    for run in runs:
        candidate = (last_loss(scale.checkpoints / run.name), run.rate)
        found[run.arm] = min(found.get(run.arm, candidate), candidate)
    return {arm: rate for arm, (_, rate) in found.items()}


def last_loss(folder: Path) -> float:
    """The last validation loss of a run; infinite if it diverged."""
    if json.loads(_record(folder).read_text(encoding="utf-8"))["exit"] == DIVERGED:
        return math.inf
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [
        line["validation_loss"] for line in map(json.loads, lines) if "validation_loss" in line
    ]
    return float(losses[-1])


def prepare_text(scale: Scale, text: Path) -> None:
    """Make the folder of tokens that a scale with its own text trains on, unless it is there."""
    folder = Path(load_config(scale.config).data.source)
    if (folder / "tokens.json").is_file():
        return
    if not text.is_file():
        sys.exit(
            f"{text} is not there: scale {scale.name!r} is trained on {scale.text}; "
            "STUDY_TEXT=PATH names it, or any other text"
        )
    options = ["--tokenizer", "bpe", "--vocab-size", str(scale.vocabulary), "--out", str(folder)]
    subprocess.run([*RANKSCOPE, "data", "prepare", str(text), *options], check=True)


RANKSCOPE = (sys.executable, "-m", "rankscope")


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _arguments(run: Run, scale: Scale, arm: Arm) -> list[str]:
    preset = load_config(scale.config, overrides=scale.changes)
    values = {
        "steps": preset.schedule.steps,
        "quarter": preset.schedule.steps // 4,
        "stabilised_alpha": preset.adapter.alpha / math.sqrt(preset.adapter.rank),
    }
    changes = [
        *scale.changes,
        *(change.format_map(values) for change in arm.changes),
        f"schedule.learning_rate={rate_name(run.rate)}",
        f"seed={run.seed}",
    ]
    settings = [word for change in changes for word in ("--set", change)]
    return ["train", str(scale.config), *settings, "--out", str(scale.checkpoints / run.name)]


def _is_done(run: Run, scale: Scale, arms: Mapping[str, Arm]) -> bool:
    try:
        record: dict[str, object] = json.loads(
            _record(scale.checkpoints / run.name).read_text(encoding="utf-8")
        )
    except FileNotFoundError:
        return False
    return record == {"arguments": _arguments(run, scale, arms[run.arm]), "exit": record["exit"]}


def _train(run: Run, scale: Scale, arms: Mapping[str, Arm]) -> float:
    folder = scale.checkpoints / run.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    arguments = _arguments(run, scale, arms[run.arm])
    log = folder.with_name(f"{folder.name}.log")
    with log.open("ab") as stream:
        ended = subprocess.run(
            [*RANKSCOPE, *arguments, "--threads", "1", "--resume"],
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if ended not in (0, DIVERGED):
        raise RuntimeError(f"{folder} ended with exit code {ended}: {log} says why")
    write_file(_record(folder), json.dumps({"arguments": arguments, "exit": ended}).encode())
    return last_loss(folder)
