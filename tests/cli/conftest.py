import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _garbage_as_before() -> Iterator[None]:
    """Undo what `main` settles for a process that is its own."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
