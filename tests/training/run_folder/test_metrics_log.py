from __future__ import annotations

import json
from pathlib import Path

from rankscope.training.run_folder.metrics_log import MetricsLog


def test_each_entry_is_one_line_of_json(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(0, loss=1.5)
    log.write(1, loss=float("nan"), event="odd")
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": "nan", "event": "odd"}]


def test_rewinding_keeps_what_was_logged_before_the_state_was_saved(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(4, loss=2.0)
    log.write(5, validation_loss=1.0)
    log.write(5, blimp_accuracy=0.5, blimp_pairs=2)
    log.write(5, rank_change=0.5)
    log.write(5, event="restart")
    log.write(5, loss=3.0)
    log.write(6, validation_loss=4.0)
    log.rewind(5)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [
        {"step": 4, "loss": 2.0},
        {"step": 5, "validation_loss": 1.0},
        {"step": 5, "blimp_accuracy": 0.5, "blimp_pairs": 2},
        {"step": 5, "rank_change": 0.5},
    ]


def test_a_line_cut_off_is_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(0, loss=1.0)
    with log.path.open("a") as file:
        file.write('{"step": 1, "lo')
    log.rewind(9)
    assert log.path.read_text() == '{"step": 0, "loss": 1.0}\n'


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.rewind(-1)
    assert log.path.read_bytes() == b""
