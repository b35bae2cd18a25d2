"""What takes long is left to ``make reliability``, which sets the variable.

Slow tests with the marker ``full_tier`` run in ``make test`` too.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("RELIABILITY") == "full":
        return
    for item in items:
        is_left_out = item.get_closest_marker("slow") and not item.get_closest_marker("full_tier")
        if item.path.is_relative_to(HERE) and is_left_out:
            item.add_marker(pytest.mark.skip(reason="make reliability runs it"))
