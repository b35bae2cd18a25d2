"""Trouble with the logs and states that trainers keep beside weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from tests.reliability.spoiled_run import (
    DEEP,
    FIFO,
    FOLDER,
    STEPS,
    SURROGATE,
    fine,
    holding,
    link_to,
    of,
    replaced,
    skipped,
    step_2,
)


def state_says(run: Path, content: object) -> None:
    """Give step 2 this trainer_state.json."""
    text = content if isinstance(content, str) else json.dumps(content)
    (step_2(run) / "trainer_state.json").write_text(text)


def last_state_says(run: Path, content: object) -> None:
    """Give the last step this trainer_state.json, from which the log is read."""
    text = content if isinstance(content, str) else json.dumps(content)
    (run / "checkpoint-3" / "trainer_state.json").write_text(text)


def log_says(run: Path, text: str) -> None:
    """Give the run this metrics.jsonl, after an honest line."""
    honest_line = '{"step": 1, "loss": 0.5}\n'
    (run / "metrics.jsonl").write_bytes((honest_line + text).encode("utf-8", "surrogatepass"))


LOSSES = """\
{"step": 1, "loss": true}
{"step": 2, "loss": 1e999, "learning_rate": "high"}
{"step": 3, "loss": "low", "validation_loss": [1]}
"""
STATES = of(
    "trainer_state.json",
    *(
        skipped(name, make, "trainer_state.json", steps=STEPS)
        for name, make in {
            "half-written": lambda r: state_says(r, '{"global_st'),
            "a list": lambda r: state_says(r, [1]),
            "deep": lambda r: state_says(r, DEEP),
            "binary": lambda r: replaced(r, "trainer_state.json", holding(b"\xff\x00")),
            "a FIFO": lambda r: replaced(r, "trainer_state.json", FIFO),
            "a folder": lambda r: replaced(r, "trainer_state.json", FOLDER),
            "a step of 5000 digits": lambda r: state_says(r, f'{{"global_step": {"9" * 5000}}}'),
        }.items()
    ),
    *(
        fine(f"a step that is {name}", partial(state_says, content={"global_step": value}))
        for name, value in {
            "a list": [2],
            "true": True,
            "negative": -2,
            "a fraction": 2.5,
            "a word": "two",
            "of 30 digits": 10**30,
        }.items()
    ),
    fine(
        "a loop of links",
        lambda r: replaced(r, "trainer_state.json", link_to("trainer_state.json")),
    ),
)
LOGS = of(
    "logs",
    fine("a line of 10^5 brackets", lambda r: log_says(r, DEEP)),
    fine("a lone surrogate as value", lambda r: log_says(r, f'{{"step": 2, "note": {SURROGATE}}}')),
    fine("a lone surrogate as key", lambda r: log_says(r, f'{{"step": 2, {SURROGATE}: 1}}')),
    fine(
        "bytes that are not UTF-8",
        lambda r: (r / "metrics.jsonl").write_bytes(b'{"step": 1, "\xff": 2}\n'),
    ),
    fine(
        "a number of 5000 digits", lambda r: log_says(r, f"""{{"step": 2, "loss": {"9" * 5000}}}""")
    ),
    fine(
        "a number of 400 digits", lambda r: log_says(r, f"""{{"step": 2, "loss": 1{"0" * 400}}}""")
    ),
    fine("a step of 400 digits", lambda r: log_says(r, f"""{{"step": 1{"0" * 400}, "loss": 1}}""")),
    fine(
        "a key with a line end and a formula", lambda r: log_says(r, '{"step": 2, "=1+1\\r\\n": 1}')
    ),
    fine("the key of our own column", lambda r: log_says(r, '{"step": 2, "run": "another"}')),
    fine(
        "a key of its own in every line",
        lambda r: log_says(r, "".join(f'{{"step": {i}, "k{i}": 1}}\n' for i in range(20_000))),
        "20003 different keys",
    ),
    fine("losses of all kinds", lambda r: log_says(r, LOSSES)),
    fine("bytes of zeros after a loss of power", lambda r: log_says(r, "\0" * 1000)),
    fine("values that are tables", lambda r: log_says(r, '{"step": 2, "loss": {"a": [1]}}')),
    fine("not a number", lambda r: log_says(r, '{"step": 2, "loss": NaN, "lr": Infinity}')),
    fine("a FIFO", lambda r: FIFO(r / "metrics.jsonl")),
    fine("a folder", lambda r: (r / "metrics.jsonl").mkdir()),
    fine(
        "history that is a number",
        lambda r: last_state_says(r, {"global_step": 3, "log_history": 5}),
    ),
    fine(
        "history that is a table",
        lambda r: last_state_says(r, {"global_step": 3, "log_history": {"step": 1}}),
    ),
    fine(
        "history of numbers",
        lambda r: last_state_says(r, {"global_step": 3, "log_history": [5, None]}),
    ),
    fine(
        "history with a lone surrogate",
        lambda r: last_state_says(
            r, f'{{"global_step": 3, "log_history": [{{"step": 1, "a": {SURROGATE}}}]}}'
        ),
    ),
    fine("a plan of words", lambda r: last_state_says(r, {"global_step": 3, "max_steps": "many"})),
    fine("settings of 10^5 brackets", lambda r: (r / "config.toml").write_text(f"a = {DEEP}")),
    fine("settings that are a FIFO", lambda r: FIFO(r / "config.toml")),
    fine(
        "infinite settings", lambda r: (r / "config.toml").write_text("[schedule]\nsteps = inf\n")
    ),
)
