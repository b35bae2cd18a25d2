"""The study: train its arms, measure them, and write tables, figures and the page.

``make study`` calls it. Every step does only what is missing, so it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from arms import (
    HERE,
    Run,
    Scale,
    iter_beyond,
    iter_dependent,
    iter_seeds,
    iter_sweep,
    read_arms,
    read_scale,
)
from drawing import draw_figures
from measuring import measure
from page import headline, write_page
from rankscope.training.config_file import load_config
from tables import read_tables, write_tables
from training import best_rates, prepare_text, train_all

PAGE = ("demo", "tiny")  # scales whose tables and figures are kept with the page


def train(scale: Scale, *, jobs: int) -> tuple[list[Run], list[Run]]:
    """Train what is missing of a scale; return all runs, and those at each arm's best rate."""
    arms = read_arms()
    if scale.text:
        prepare_text(scale, Path(os.environ.get("STUDY_TEXT", scale.text)))
    runs = list(iter_sweep(scale))
    train_all(runs, scale, arms, jobs=jobs)
    while beyond := list(iter_beyond(runs, best_rates(runs, scale), scale)):
        train_all(beyond, scale, arms, jobs=jobs)
        runs += beyond
    dependent = list(iter_dependent(scale, best_rates(runs, scale)))
    train_all(dependent, scale, arms, jobs=jobs)
    runs += dependent
    best = best_rates(runs, scale)
    seeds = list(iter_seeds(scale, best))
    train_all(seeds, scale, arms, jobs=jobs)
    runs += seeds
    return runs, [Run(arm, best[arm], seed) for arm in scale.rates for seed in scale.seeds]


def main() -> None:
    """Parse the command line and do everything that is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scale", help="demo, quick, tiny or another one of arms.toml")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    given = parser.parse_args()
    scale = read_scale(given.scale)
    runs, best = train(scale, jobs=given.jobs)
    schedule = load_config(scale.config, overrides=scale.changes).schedule
    measure(scale, runs, best, schedule.steps)
    kept = HERE if scale.name in PAGE else scale.results
    folder = kept / "tables" / scale.name if kept is HERE else kept / "tables"
    write_tables(scale, runs, best, schedule.restart_every, folder)
    tables = read_tables(folder)
    draw_figures(
        tables, read_arms(), kept / "figures" / scale.name if kept is HERE else kept / "figures"
    )
    if kept is HERE:
        write_page(HERE, [name for name in PAGE if (HERE / "tables" / name).is_dir()])
    for line in headline(tables, read_arms()):
        print(line)


if __name__ == "__main__":
    main()
