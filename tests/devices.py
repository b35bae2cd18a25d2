"""The devices of torch that tests run on: always the processor, and a GPU where there is one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ("cpu", pytest.param("cuda", marks=needs_gpu))
