"""Every public name shows how it is called; ``pytest --doctest-modules`` runs what it shows."""

import doctest
import inspect

import pytest

import rankscope

NAMES = [name for name in rankscope.__all__ if name != "plots"]


@pytest.mark.parametrize(
    "name",
    [
        *NAMES,
        *(f"plots.{name}" for name in rankscope.plots.__all__),
        *(f"relora.{name}" for name in rankscope.relora.__all__),
    ],
)
@pytest.mark.slow
def test_it_ends_with_an_example(name: str) -> None:
    value = rankscope
    for part in name.split("."):
        value = getattr(value, part)
    if not callable(value):
        pytest.skip("not a function or class")
    examples = doctest.DocTestFinder(recurse=False).find(value, name)
    assert any(test.examples for test in examples), inspect.getfile(value)
