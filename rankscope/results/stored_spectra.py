"""A spectrum as a file of the store has it: a description in JSON, and the bytes of its values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rankscope.results.vectors import as_json
from rankscope.spectra.bounds import Ends, Values, Within
from rankscope.spectra.spectrum import Cosine, Norm, Sparsity, Spectrum


class StoredSpectrum(NamedTuple):
    """A spectrum with nothing left to do but to join it with the others of its file.

    Attributes
    ----------
    described
        All but the numbers below: a JSON object.
    values
        The singular values, as float64.
    ends
        Lower and upper ends of the intervals, if they do not follow from the values and one bound.
    """

    described: str
    values: bytes
    ends: tuple[bytes, bytes] | None

    @classmethod
    def of(cls, spectrum: Spectrum) -> StoredSpectrum:
        """The stored form of a spectrum."""
        bounds = spectrum.bounds
        ends = (_bytes(bounds.lower), _bytes(bounds.upper)) if isinstance(bounds, Ends) else None
        return cls(as_json(_described(spectrum)), _bytes(spectrum.values), ends)

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum, bit by bit."""
        ends = None if self.ends is None else Ends(*map(numbers_in, self.ends))
        return spectrum_of(json.loads(self.described), numbers_in(self.values), ends)


def spectrum_of(described: Mapping[str, Any], values: Values, ends: Ends | None) -> Spectrum:
    """The spectrum of a description, which need not be of the present version."""
    floor, before = described["noise_floor"], described.get("before")
    cosine, entries = described.get("cosine"), described.get("entries")
    rows, columns = described["shape"]
    return Spectrum(
        shape=(rows, columns),
        dtype=described["dtype"],
        values=values,
        bounds=Within(*described["within"]) if ends is None else ends,
        noise_floor=math.nan if floor is None else floor,
        noise_source=described["noise_source"],
        route=described["route"],
        status=described["status"],
        significant_bits=described.get("significant_bits", 0),
        before=Norm(*before) if before else None,
        cosine=Cosine(*cosine) if cosine else None,
        entries=Sparsity(*entries) if entries else None,
        is_scaled=described.get("is_scaled", True),
    )


def numbers_in(content: bytes) -> Values:
    """The float64 numbers in these bytes."""
    return np.frombuffer(content, np.float64)


def _bytes(values: Values) -> bytes:
    return np.asarray(values, np.float64).tobytes()


def _described(spectrum: Spectrum) -> dict[str, Any]:
    return {
        "shape": spectrum.shape,
        "dtype": spectrum.dtype,
        "count": spectrum.max_rank,
        "within": spectrum.bounds if isinstance(spectrum.bounds, Within) else None,
        "noise_floor": None if math.isnan(spectrum.noise_floor) else spectrum.noise_floor,
        "noise_source": spectrum.noise_source,
        "route": spectrum.route,
        "status": spectrum.status,
        "significant_bits": spectrum.significant_bits,
        "before": spectrum.before,
        "cosine": spectrum.cosine,
        "entries": spectrum.entries,
        **({} if spectrum.is_scaled else {"is_scaled": False}),
    }
