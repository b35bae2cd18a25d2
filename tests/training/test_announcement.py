from __future__ import annotations

import numpy as np
import pytest

from rankscope.training.announcement import MOST_STEPS, boundary_lines, summary
from rankscope.training.config_file import config_from
from rankscope.training.data.corpus import Corpus
from rankscope.training.departures import departures
from rankscope.training.schedule import timeline


@pytest.fixture
def corpus() -> Corpus:
    ids = np.zeros(3000, dtype=np.uint16)
    return Corpus(ids[:2000], ids[2000:], vocab_size=31, end_of_document=None, tokenizer=None)


@pytest.mark.parametrize(("every", "said"), [(5, "3 restarts"), (10, "1 restart,"), (18, "0 re")])
def test_the_summary_says_what_will_happen(corpus: Corpus, every: int, said: str) -> None:
    schedule = {"schedule.steps": 18, "schedule.warmup_steps": 2, "schedule.restart_every": every}
    config = config_from({"method": "relora", "out": "ckpts/here"} | schedule)
    text = "\n".join(summary(config, corpus))
    assert f"18 steps of 1,024 tokens, {said}" in text
    assert "2,000 tokens to train on, 1,000 to validate on, vocabulary 31" in text
    assert "writing to ckpts/here" in text
    assert all(line in text for line in departures(config))


def test_a_full_rank_run_is_compared_with_nothing(corpus: Corpus) -> None:
    assert not any("Unlike" in line for line in summary(config_from({}), corpus))


def test_the_vocabulary_of_the_model_counts_where_it_is_larger(corpus: Corpus) -> None:
    small, large = (
        summary(config_from({"model.vocab_size": v}), corpus)[0] for v in (0, 31 + 1000)
    )
    assert small.startswith("full: ") and large.startswith("full: ")
    totals = [int(line.split()[1].replace(",", "")) for line in (small, large)]
    assert totals[1] - totals[0] == 2 * 1000 * 64


@pytest.mark.parametrize("restarts", [0, 1, MOST_STEPS, MOST_STEPS + 1, 100])
def test_a_long_list_of_restarts_is_shortened_but_counted(restarts: int) -> None:
    every = 1000 // (restarts + 1) + (1000 % (restarts + 1) > 0)
    config = config_from({"method": "relora", "schedule.restart_every": every})
    line = timeline(config)
    lines = boundary_lines(line)
    count = len(line.boundaries)
    if not count:
        assert len(lines) == 1
    else:
        assert lines[-1].startswith(f"{count} restart{'s'[: count != 1]}: ")
        assert len(lines[-1].split(": ")[1].split(", ")) <= MOST_STEPS
        assert lines[-1].endswith(f"{line.boundaries[-1].step}")
