"""`TableFile`: a table in Parquet, of which the columns and rows that are asked for are read.

A million rows of all columns take half a gigabyte. What a figure shows is a component in a dozen
columns: it takes a tenth of that. One column is read at a time, so that not much more is in memory
than what is given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray
from pandas.api.types import pandas_dtype

from rankscope.results.column_types import type_of

Codes: TypeAlias = NDArray[Any]  # integers
Coded: TypeAlias = tuple[Codes, list[Any]]
Flags: TypeAlias = NDArray[np.bool_]
Where: TypeAlias = Mapping[str, Collection[Any]]

MOST_CODES = 2**62  # beyond, codes of several columns are renumbered


class TableFile:
    """A Parquet file as a table with integers, text and otherwise floating-point numbers.

    Parameters
    ----------
    path
        The file. It is opened once, so that all columns are of the same file although another is
        renamed onto it, until the context ends.
    whole, text
        The columns that hold integers, and text.
    kept
        Codes of columns of the same file, by column: those that it has are not read, and those that
        are read are added if there are places for them: an entry that is None.
    """

    def __init__(
        self,
        path: Path,
        *,
        whole: Collection[str],
        text: Collection[str],
        kept: dict[str, Coded | None] | None = None,
    ) -> None:
        self._whole, self._text = whole, text
        self._kept = {} if kept is None else kept
        self._source = pa.OSFile(str(path))
        about = pa.parquet.read_metadata(self._source)
        words = [one.name for one in about.schema.to_arrow_schema() if one.type == pa.string()]
        self._file = pa.parquet.ParquetFile(
            self._source, metadata=about, read_dictionary=[name for name in text if name in words]
        )
        self.columns = tuple(map(str, self._file.schema_arrow.names))
        self.count = int(self._file.metadata.num_rows)

    @property
    def is_plain(self) -> bool:
        """Whether all columns are stored in the types that they are given in."""
        stored = dict(zip(self.columns, self._file.schema_arrow.types, strict=True))
        kinds = {
            name: pa.int64() if name in self._whole else pa.float64()
            for name in stored
            if name not in self._text
        }
        words = pa.dictionary(pa.int32(), pa.string())
        return all(kind == kinds.get(name, words) for name, kind in stored.items())

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._source.close()
        pa.default_memory_pool().release_unused()  # it would keep as much as all columns took

    def frame(self, columns: Iterable[str], chosen: Flags | None = None) -> pd.DataFrame:
        """These columns of the chosen rows, or of all; a column that the file lacks is empty."""
        count = self.count if chosen is None else int(np.count_nonzero(chosen))
        kept = None if chosen is None or count == self.count else pa.array(chosen)
        series = {name: self._series(name, kept, count) for name in columns}
        return pd.DataFrame(series, index=pd.RangeIndex(count), copy=False)

    def chosen(self, where: Where) -> Flags:
        """Which rows have one of the values that are given for each column."""
        flags = np.ones(self.count, np.bool_)
        for name, wanted in where.items():
            codes, words = self.codes(name)
            flags &= np.array([False, *(word in wanted for word in words)])[codes]
        return flags

    def distinct(self, columns: Collection[str], chosen: Flags | None = None) -> pd.DataFrame:
        """What is different in these columns of the chosen rows, or of all, as it occurs first."""
        places = np.arange(self.count) if chosen is None else np.flatnonzero(chosen)
        is_again = pd.Series(self.groups(columns)[places]).duplicated().to_numpy()
        first = np.zeros(self.count, np.bool_)
        first[places[~is_again]] = True
        return self.frame(columns, first)

    def range(self, name: str) -> tuple[float, float]:
        """The least and the greatest number of a column; NaN without numbers."""
        if name not in self.columns:
            return math.nan, math.nan
        column = self._read(name)
        if not pa.types.is_integer(column.type):
            column = column.cast(pa.float64())
        ends = pyarrow.compute.min_max(column).as_py()
        low, high = (math.nan if end is None else float(end) for end in ends.values())
        return low, high

    def codes(self, name: str) -> Coded:
        """A number for each row: 0 where the cell is missing, else 1 + its place in the list.

        The list has the different values of the column, in any order.
        """
        kept = self._kept.get(name)
        if kept is None:
            kept = self._codes(name)
            if name in self._kept:
                codes, words = kept
                kept = self._kept[name] = codes.astype(np.min_scalar_type(len(words))), words
        return kept

    def _codes(self, name: str) -> Coded:
        if name not in self.columns:
            return np.zeros(self.count, np.int64), []
        column = self._read(name)
        if pa.types.is_floating(column.type):  # where NaN is missing too
            codes, values = pd.factorize(column.to_pandas())
            return codes.astype(np.int64) + 1, list(values)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        encoded = column.unify_dictionaries().combine_chunks()
        return encoded.indices.fill_null(-1).to_numpy() + 1, encoded.dictionary.to_pylist()

    def groups(self, columns: Iterable[str]) -> Codes:
        """A number for each row, the same for those that are alike in all these columns."""
        groups, count = np.zeros(self.count, np.int64), 1
        for name in columns:
            codes, words = self.codes(name)
            if count * (len(words) + 1) > MOST_CODES:
                groups, first = pd.factorize(groups)
                groups, count = groups.astype(np.int64), len(first)
            groups *= len(words) + 1
            groups += codes
            count *= len(words) + 1
        return groups

    def _series(self, name: str, kept: pa.Array | None, count: int) -> pd.Series[Any]:
        kind: Any = type_of(name, self._whole, self._text)
        if name not in self.columns:
            return pd.Series(np.full(count, None), dtype=object).astype(kind)
        column = self._read(name)
        if kept is not None:
            column = column.filter(kept)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.large_string())
        types = _TYPES if kind == "object" else {**_TYPES, pa.large_string(): pandas_dtype(kind)}
        series: pd.Series[Any] = column.combine_chunks().to_pandas(types_mapper=types.get)
        if series.dtype != kind:
            return series.astype(kind)
        # The numbers of an Arrow array belong to it, and nobody may change them.
        return series.copy() if kind == "float64" else series

    def _read(self, name: str) -> pa.ChunkedArray:
        return self._file.read(columns=[name], use_threads=False).column(name)


# Through float64, large integers beside a missing one would be others.
_TYPES = {pa.int64(): pd.Int64Dtype()}
