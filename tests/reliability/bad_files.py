"""All bad files: families 1 to 74 of the survey, in every place where a file of tensors is read."""

from __future__ import annotations

from tests.reliability.bad import Bad
from tests.reliability.bad_arrays import BAD_ARRAYS
from tests.reliability.bad_factors import BAD_FACTORS
from tests.reliability.bad_numbers import BAD_NUMBERS
from tests.reliability.bad_safetensors import BAD_SAFETENSORS
from tests.reliability.bad_tables import BAD_TABLES
from tests.reliability.bad_torch import BAD_TORCH

BAD_FILES: list[Bad] = [
    *BAD_SAFETENSORS,
    *BAD_TORCH,
    *BAD_TABLES,
    *BAD_NUMBERS,
    *BAD_ARRAYS,
    *BAD_FACTORS,
]
