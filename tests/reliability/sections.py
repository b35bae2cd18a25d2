"""What the table of reliability is made of; a new part of these tests adds its section here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.reliability.fuzz import in_words, tallies, today
from tests.reliability.row import Row, Section

HERE = Path(__file__).parent
FEW, MANY = 660, 100_000  # mutants, of all kinds together


def mutants(_scratch: Path, is_full: bool) -> Iterator[Row]:
    """Mutants of every kind of file that is read."""
    seed = today()
    found = list(tallies(seed, MANY if is_full else FEW, jobs=os.cpu_count() or 1))
    yield Row(
        f"mutants of {len(found)} kinds of files",
        sum(one.fates.total() for one in found),
        "mutants",
        tuple(f"{one.name}: {outcome.where}" for one in found for outcome in one.fallen),
        f"{in_words(found, seed)}; slowest {max(one.slowest for one in found):.1f} s, "
        f"most memory {max(one.memory for one in found) / 2**20:.0f} MB",
    )


class _Counted:
    """A plugin of pytest that counts tests and keeps the names of those that fail."""

    def __init__(self) -> None:
        self.passed, self.failed = 0, list[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid.rpartition("::")[2])
        elif report.when == "call" and report.passed:
            self.passed += 1


def cases_of(what: str, unit: str, *files: str) -> Section:
    """A section that counts the cases of parametrised tests."""

    def section(_scratch: Path, is_full: bool) -> Iterator[Row]:
        counted, marks = _Counted(), () if is_full else ("-m", "not slow")
        paths = [str(HERE / file) for file in files]
        pytest.main(["-q", "-p", "no:cacheprovider", *marks, *paths], plugins=[counted])
        yield Row(what, counted.passed + len(counted.failed), unit, tuple(counted.failed))

    return section


def elsewhere(place: str) -> Section:
    """A section that another part has, as ``module:function``."""

    def section(scratch: Path, is_full: bool) -> Iterator[Row]:
        module, _, function = place.partition(":")
        yield from getattr(import_module(f"tests.reliability.{module}"), function)(scratch, is_full)

    return section


SECTIONS: tuple[Section, ...] = (
    cases_of("bad files between honest steps", "cases", "test_bad_files.py"),
    cases_of("bad runs, folders, logs, names and links", "cases", "test_bad_runs.py"),
    cases_of("small files that cost much", "cases", "test_limits.py"),
    cases_of("files that once crashed a reader", "cases", "test_corpus.py"),
    cases_of("full disks", "cases", "test_full_disk.py"),
    cases_of("folders that somebody writes", "cases", "test_live_folders.py"),
    elsewhere("kills:section"),
    elsewhere("kills_of_represent:section"),
    elsewhere("power_loss.trials:power_losses"),
    mutants,
)
