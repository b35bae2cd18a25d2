"""A results folder, opened: its tables and the spectra behind them."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from rankscope.errors import (
    RankscopeError,
    RankscopeWarning,
    WrongSettingError,
    does_not_exist,
    printable,
)
from rankscope.results.column_types import Shared, with_types
from rankscope.results.columns import (
    ANALYSIS_RECORD,
    COLUMNS,
    EVALUATION_COLUMNS,
    EVALUATION_FILE,
    EVALUATION_RECORD,
    EVALUATION_TEXT,
    EVALUATION_WHOLE,
    INPUT_ENERGIES_FILE,
    KEY,
    LOGGED_NUMBERS,
    METRICS_FILE,
    REPRESENTATIONS_FILE,
    REPRESENTATIONS_FOLDER,
    REPRESENTATIONS_RECORD,
    SCORES_FOLDER,
    SIMILARITIES_FILE,
    SPECTRA_FOLDER,
    SUBSPACE_COLUMNS,
    SUBSPACE_TEXT,
    SUBSPACE_WHOLE,
    SUBSPACES_FILE,
    TEXT,
    TRAINING_FILE,
    WHOLE,
)
from rankscope.results.csv_tables import original
from rankscope.results.merge_table import merge_table
from rankscope.results.older import empty_columns, filled
from rankscope.results.own_metrics import OwnMetric, OwnMetrics, require_new, with_own
from rankscope.results.parquet_tables import check_size
from rankscope.results.record import ADVICE, damage_named, is_as_written, read_record
from rankscope.results.representation_tables import (
    typed_input_energies,
    typed_representations,
    typed_similarities,
)
from rankscope.results.row_checks import check_rows
from rankscope.results.spectra_store import Entry
from rankscope.results.stored_rows import PLACE, by_step
from rankscope.results.summary_tables import summary_html, summary_text
from rankscope.results.table_file import Coded, Flags, TableFile, Where
from rankscope.statistics.restart_schedules import RESTARTS, restarts_of

Value = TypeVar("Value", str, int)
# What a call writes: its record, which comes last, its table, and its store, which comes first.
WRITTEN = (
    (ANALYSIS_RECORD, METRICS_FILE, SPECTRA_FOLDER),
    (EVALUATION_RECORD, EVALUATION_FILE, SCORES_FOLDER),
    (REPRESENTATIONS_RECORD, REPRESENTATIONS_FILE, REPRESENTATIONS_FOLDER),
)
Chosen: TypeAlias = "Value | Collection[Value]"
STORED = ("run", "step", *PLACE, "status", "update_cosine")  # find a row's spectrum in the store
MATRIX_COLUMNS = ("layer", "role", "component", "head", "expert", "name")
VALUE_COLUMNS = (
    *("run", "step", *MATRIX_COLUMNS),
    *("index", "singular_value", "lower", "upper", "noise_floor"),
)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns and types of every metrics table."""
    return typed(pd.DataFrame(list(rows), columns=list(COLUMNS)))


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """A metrics table with all columns and their types; columns that it lacks are empty."""
    return with_types(table.reindex(columns=list(COLUMNS)), WHOLE, TEXT)


def typed_evaluation(table: pd.DataFrame) -> pd.DataFrame:
    """A table of an evaluation with its columns and their types."""
    return with_types(table[list(EVALUATION_COLUMNS)], EVALUATION_WHOLE, EVALUATION_TEXT)


def typed_subspaces(table: pd.DataFrame) -> pd.DataFrame:
    """A table of subspaces with its columns and their types."""
    return with_types(table[list(SUBSPACE_COLUMNS)], SUBSPACE_WHOLE, SUBSPACE_TEXT)


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    """Read a table whose size was checked before; damage is an error that names it."""
    with damage_named(path, ADVICE):
        if path.suffix == ".parquet":
            check_size(path)
        yield


def _require(table: pd.DataFrame, *groups: Sequence[str]) -> None:
    """Check that every row says what it is of."""
    for name in (name for group in groups for name in group):
        if table[name].isna().any():
            raise ValueError(f"a row has no {name}")


def rows_of(table: pd.DataFrame, columns: Collection[str], where: Where) -> pd.DataFrame:
    """Rows of a table in memory that have one of the values given for each column, renumbered.

    Raises
    ------
    WrongSettingError
        If it has no such column.
    """
    require_columns(columns, table.columns)
    chosen = np.ones(len(table), np.bool_)
    for name, wanted in where.items():
        chosen &= table[name].isin(list(wanted)).to_numpy(np.bool_, na_value=False)
    rows = table if chosen.all() else table[chosen]
    return rows[list(dict.fromkeys(columns))].reset_index(drop=True)


def require_columns(columns: Iterable[str], there: Iterable[str]) -> None:
    """Check that a table has these columns."""
    for name in columns:
        if name not in there:
            known = ", ".join(map(str, there))
            raise WrongSettingError(f"no column {name!r} for `columns`: choose from {known}")


def listed(value: Any) -> list[Any]:
    """A value, or several of them, as a list."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else [*value]


def _where(given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values asked for of each column that is given."""
    return {name: listed(value) for name, value in given.items() if value is not None}


def _state(path: Path) -> tuple[int, ...]:
    """What another file under this name would have different."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


@dataclass(frozen=True)
class Results:
    """A folder of results; its tables are read when they are first used.

    It is one that `rankscope.analyze`, `rankscope.evaluate` or `rankscope.represent` wrote.

    Attributes
    ----------
    path
        The folder.
    own
        Metrics of your own, from `with_metric`: names and functions.

    Examples
    --------
    >>> import rankscope as rs
    >>> results = rs.open_results("results")
    >>> rows = results.metrics.query("run == 'relora' and step == 20 and role == 'q'")
    >>> rows.groupby("component")["numerical_rank"].max().to_dict()  # adapters of rank 2, merged
    {'adapter': 2, 'gradient': 16, 'merge': 2, 'merged_total': 4, 'update': 2, 'weight': 16}
    >>> results.spectra("merge", run="relora", step=20, layer=0, role="q")["index"].tolist()
    [0, 1]
    """

    path: Path
    own: OwnMetrics = ()

    def with_metric(self, name: str, function: OwnMetric) -> Results:
        """Return the results with one more column: a function of every matrix's singular values.

        The column is in `metrics`, and figures draw it by its name, as in
        ``rs.plots.metric(table, name)``. It is computed from the stored spectra when the table is
        first used.

        Parameters
        ----------
        name
            Name of the column.
        function
            Takes the singular values of a matrix, descending, float64, shape ``(k,)``, and
            ``shape``, the rows and columns of the matrix, if it has a parameter of that name. k is
            the smaller side, or the inner dimension of a product: its other values are zero.
            Returns a number; NaN where it is not defined.

        Returns
        -------
        New `Results`; the old ones do not change. The column is empty for matrices that have no
        rank: zero, not finite, or nothing but rounding of the arithmetic. It is also empty for
        adapters of unknown scale, if the number depends on the scale.

        Raises
        ------
        WrongSettingError
            If the table has such a column; and, when the table is used, if the function fails or
            does not return a number. The message names the matrix.

        Notes
        -----
        No interval or noise floor is applied: a number that depends on small singular values may be
        mere rounding. Compare with ``noise_floor`` and ``per_resolved``.

        Examples
        --------
        >>> import rankscope as rs
        >>> results = rs.open_results("results").with_metric("gap", lambda s: s[0] / s[1])
        >>> bool((results.metrics["gap"].dropna() >= 1).all())
        True
        >>> rs.plots.metric(results.metrics, "gap", role="q").get_ylabel()
        'gap'
        """
        require_new(name, self.own)
        return replace(self, own=(*self.own, (name, function)))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per matrix and step, with the columns `COLUMNS`; empty if nothing was analysed.

        A table of an older version is completed from its store, with a `RankscopeWarning` that
        names the columns that remain empty. Metrics of your own come last.
        """
        table = self._measured()
        own = with_own(table, self.path / SPECTRA_FOLDER, self.own) if self.own else table
        return self._described(own)

    def _measured(self) -> pd.DataFrame:
        if not (self.path / METRICS_FILE).is_file():
            return table_of([])
        with self._table() as file:
            table = file.frame(COLUMNS)
            added = frozenset(COLUMNS) - frozenset(file.columns)
        if added:
            with damage_named(self.path / METRICS_FILE, ADVICE):
                table = typed(filled(table, self.path / SPECTRA_FOLDER))
            self._say_what_is_empty(empty_columns(table, added))
        return table

    def rows(
        self,
        columns: Collection[str] | None = None,
        *,
        run: Chosen[str] | None = None,
        step: Chosen[int] | None = None,
        layer: Chosen[int] | None = None,
        role: Chosen[str] | None = None,
        component: Chosen[str] | None = None,
    ) -> pd.DataFrame:
        """Rows and columns of `metrics`; nothing else of the table is read.

        Of a million rows, `metrics` takes 0.8 GB while it is read; those of a component in the
        dozen columns of a figure take a tenth of that.

        Parameters
        ----------
        columns
            Names of columns; all by default. Figures want what identifies a matrix besides the
            metric: leave the rows to this method and the columns alone, unless memory is short.
        run, step, layer, role, component
            Only rows with this value, or with one of these; those of all by default.

        Returns
        -------
        The rows in the order of the table, numbered from 0. With ``attrs`` as those of `metrics`,
        and the restarts of all runs, so that figures of a part show them too.

        Raises
        ------
        WrongSettingError
            If there is no such column.
        RankscopeError
            If the table is damaged, or is no longer the one that was first read.

        Examples
        --------
        >>> import rankscope as rs
        >>> results = rs.open_results("results")
        >>> weights = results.rows(component="weight", role=["q", "k"])
        >>> rs.plots.metric(weights, "per").get_ylabel()
        'PER = effective rank / min(m, n)'
        >>> results.rows(["step", "per"], run="full", component="weight", role="q", layer=0).shape
        (3, 2)
        """
        given = {"run": run, "step": step, "layer": layer, "role": role, "component": component}
        where = _where(given)
        asked = [*COLUMNS, *dict(self.own)] if columns is None else [*columns]
        found = self._pushed_down(asked, where)
        if found is None:  # such a table may have been given more columns, of groups for example
            known = {*COLUMNS, *asked, *dict(self.own)}
            added = [str(name) for name in self.metrics if name not in known]
            found = rows_of(self.metrics, [*asked, *added], where)
        return self._described(found, restarts=self._merges)

    def distinct(
        self,
        columns: Collection[str],
        *,
        run: Chosen[str] | None = None,
        step: Chosen[int] | None = None,
        layer: Chosen[int] | None = None,
        role: Chosen[str] | None = None,
        component: Chosen[str] | None = None,
    ) -> pd.DataFrame:
        """Distinct rows of a few columns of `metrics`, each where it occurs first.

        Takes the parameters of `rows` and raises what it raises. Of a million rows, the layers of
        all runs take a tenth of a second and hardly any memory.

        Examples
        --------
        >>> import rankscope as rs
        >>> results = rs.open_results("results")
        >>> results.distinct(["run", "layer"], component="weight")
              run  layer
        0    full      0
        1    full      1
        2  relora      0
        3  relora      1
        """
        given: dict[str, Any] = {"run": run, "step": step, "layer": layer}
        given |= {"role": role, "component": component}
        found = self._pushed_down(columns, _where(given), TableFile.distinct)
        if found is None:
            return self.rows(columns, **given).drop_duplicates(ignore_index=True)
        return self._described(found, restarts=self._merges)

    def _pushed_down(
        self,
        columns: Collection[str],
        where: Where,
        read: Callable[[TableFile, Collection[str], Flags | None], pd.DataFrame] = TableFile.frame,
    ) -> pd.DataFrame | None:
        """Rows read from the file; None where the table has to be made, or is in memory."""
        if "metrics" in vars(self) or self.own or not (self.path / METRICS_FILE).is_file():
            return None
        with self._table() as file:
            if not file.is_plain or not {*COLUMNS} <= {*file.columns}:
                return None
            require_columns(columns, COLUMNS)
            return read(file, columns, file.chosen(where) if where else None)

    @contextmanager
    def _table(self) -> Iterator[TableFile]:
        """The table, as it was when it was first read."""
        path = self.path / METRICS_FILE
        first = self._first_state
        with _checked(path), self._opened() as file:
            if _state(path) != first:
                message = "was replaced since it was first read: open the results again"
                raise RankscopeError(message, path=path, reason="changed-while-reading")
            yield file

    def _opened(self) -> TableFile:
        return TableFile(self.path / METRICS_FILE, whole=WHOLE, text=TEXT, kept=self._codes)

    @cached_property
    def _codes(self) -> dict[str, Coded | None]:
        """Codes of the columns that rows are chosen by: one or two bytes a row."""
        return dict.fromkeys(("run", "step", "layer", "role", "component"))

    @cached_property
    def _first_state(self) -> tuple[int, ...]:
        """State of the table's file, whose rows were then found to be those of an analysis."""
        path = self.path / METRICS_FILE
        state = _state(path)
        with (
            self._reading(path, ANALYSIS_RECORD),
            self._opened() as file,
        ):
            check_rows(file)
        return state

    @contextmanager
    def _reading(self, path: Path, record: str) -> Iterator[None]:
        """Read a table: damage is an error, a table that is not the recorded one a warning."""
        if not is_as_written(self.path / record, path.name):
            message = f"{printable(str(path))}: is not what was written: {ADVICE}"
            warnings.warn(RankscopeWarning(message), stacklevel=6)
        with _checked(path):
            yield

    def _say_what_is_empty(self, names: Sequence[str]) -> None:
        if not names:
            return
        floors = ", and whose noise floors of products lack the rounding of their factors"
        message = (
            f"{printable(str(self.path))}: an older version wrote this table, which lacks "
            f"{', '.join(names)}{floors if 'significant_bits' in names else ''}: "
            "`rankscope analyze` into this folder rewrites it"
        )
        warnings.warn(RankscopeWarning(message), stacklevel=5)

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        """One row per measure of performance and step; empty if nothing was evaluated.

        Columns run, step, task, group, metric, value, ci_low, ci_high, n.
        """
        path = self.path / EVALUATION_FILE
        if not path.is_file():
            return typed_evaluation(pd.DataFrame(columns=list(EVALUATION_COLUMNS)))
        with self._reading(path, EVALUATION_RECORD):
            table = typed_evaluation(pd.read_parquet(path))
            _require(table, KEY[:2], ("task", "group", "metric"))
        return self._described(table, restarts=self.restarts)

    @cached_property
    def subspaces(self) -> pd.DataFrame:
        """How leading singular subspaces moved: one row per comparison and measure.

        Columns run, step, against, layer, role, component, head, expert, name, measure, side, k,
        value, error, noise, null, status. Empty unless the analysis was called with ``subspaces``.
        """
        path = self.path / SUBSPACES_FILE
        if not path.is_file():
            return typed_subspaces(pd.DataFrame(columns=list(SUBSPACE_COLUMNS)))
        with self._reading(path, ANALYSIS_RECORD):
            table = typed_subspaces(pd.read_parquet(path))
            _require(table, KEY[:2], ("component", "name", "measure"))
        return self._described(table, restarts=self.restarts)

    @cached_property
    def representations(self) -> pd.DataFrame:
        """What the layers carry: one row per run, step and place in the network.

        Columns run, step, text, features, layer, at, and the numbers of
        `rankscope.representations.feature_metrics`; empty unless `represent` was called.
        docs/representations.md says what they mean.
        """
        return self._represented(REPRESENTATIONS_FILE, typed_representations, ("layer", "at"))

    @cached_property
    def similarities(self) -> pd.DataFrame:
        """How similar the features of two checkpoints or layers are: one row per pair.

        Columns run, step, text, features, layer, at, comparison, against_run, against_step,
        against_layer, against_at, and the numbers of `rankscope.representations.probe_features`;
        empty unless `represent` was called with ``compare``.
        """
        return self._represented(SIMILARITIES_FILE, typed_similarities, ("comparison",))

    @cached_property
    def input_energies(self) -> pd.DataFrame:
        """How much of each weight's input lies in its leading directions: one row per share.

        Columns run, step, text, features, layer, role, component, name, since, span, weight_share,
        and the numbers of `rankscope.representations.input_energy`; empty unless `represent` was
        called with ``energy``.
        """
        return self._represented(INPUT_ENERGIES_FILE, typed_input_energies, ("role", "name"))

    def _represented(
        self, name: str, types: Callable[[pd.DataFrame], pd.DataFrame], needed: Sequence[str]
    ) -> pd.DataFrame:
        path = self.path / name
        if not path.is_file():
            return types(pd.DataFrame())
        with self._reading(path, REPRESENTATIONS_RECORD):
            table = types(pd.read_parquet(path))
            _require(table, KEY[:2], needed)
        return self._described(table, restarts=self.restarts)

    @cached_property
    def _record(self) -> dict[str, Any]:
        return read_record(self.path / ANALYSIS_RECORD)

    @property
    def unit(self) -> str:
        """What the steps of the runs count: ``step``, ``epoch``, ``tokens``, or several of them."""
        runs = self._record.get("runs", [])
        return " or ".join(dict.fromkeys(str(run.get("unit", "step")) for run in runs)) or "step"

    @property
    def breaks(self) -> dict[str, int]:
        """The last step at which another model begins, by the name of the run."""
        return dict(self._record.get("breaks", {}))

    @property
    def restarts(self) -> dict[str, list[int]]:
        """Steps of the merges on record, ascending, by the name of each run that has any."""
        if not (self.path / METRICS_FILE).is_file():
            return {}
        runs = self._record.get("runs", [])
        monitored = {run["name"]: list(run.get("restarts") or ()) for run in runs}
        return {run: steps for run, steps in monitored.items() if steps} | self._merges

    @cached_property
    def _merges(self) -> dict[str, list[int]]:
        """Steps of the merges in the table, by run."""
        columns, where = ["run", "step", "component"], {"component": ["merge"]}
        found = self._pushed_down(columns, where)
        return restarts_of(self.metrics if found is None else found)

    def _described(
        self, table: pd.DataFrame, *, restarts: Mapping[str, list[int]] | None = None
    ) -> pd.DataFrame:
        """The table with ``unit`` and ``breaks`` attached, for the axes and lines of figures.

        Those without rows of merges also have ``restarts``.
        """
        table.attrs |= {"unit": self.unit, "breaks": self.breaks}
        if restarts:
            table.attrs |= {RESTARTS: Shared(restarts)}
        return table

    def summary(self) -> str:
        """The summary that `rankscope analyze` prints, as text: tables, their terms, findings.

        Raises
        ------
        RankscopeError
            If the folder holds no analysis.

        Examples
        --------
        >>> import rankscope as rs
        >>> print(rs.open_results("results").summary())
        weight: first → last step
        run     role      step  matrices            PER  effective rank     rank  max. rank ...
        """
        analysis = self._analysis()
        with damage_named(self.path / ANALYSIS_RECORD, ADVICE):
            return summary_text(analysis)

    def to_latex(
        self,
        column: str = "per",
        *,
        component: str = "weight",
        steps: Collection[int] | None = None,
        digits: int = 2,
    ) -> str:
        """A metric by role, run and step as a table for a paper.

        Takes the parameters of `rankscope.statistics.latex_table.latex_table`, which describes the
        cells.
        """
        from rankscope.statistics.latex_table import latex_table

        rows = self.rows(component=component)
        if rows.empty:  # what there is instead is in the whole table
            rows = self.metrics
        return latex_table(rows, column, component=component, steps=steps, digits=digits)

    def _repr_html_(self) -> str:
        title = f"<b>results in {html.escape(printable(str(self.path)))}</b>"
        if not (self.path / METRICS_FILE).is_file():
            tasks = map(str, self.evaluation["task"].unique())
            texts = map(str, self.representations["text"].unique())
            listed = {"an evaluation": ", ".join(tasks), "representations": ", ".join(texts)}
            lines = (f"<p>{what}: {html.escape(of)}</p>" for what, of in listed.items() if of)
            return title + "".join(lines)
        analysis = self._analysis()
        with damage_named(self.path / ANALYSIS_RECORD, ADVICE):
            return title + summary_html(analysis)

    def _analysis(self) -> dict[str, Any]:
        """The record of the analysis."""
        record = read_record(self.path / ANALYSIS_RECORD)
        if "summary" not in record:
            message = f"holds no summary in {ANALYSIS_RECORD}: `rankscope analyze` writes it"
            raise RankscopeError(message, path=self.path)
        return record

    @cached_property
    def training(self) -> pd.DataFrame:
        """The logs of the runs' training: run, step, loss and more; empty without logs.

        Text in a column of numbers counts as missing.
        """
        path = self.path / TRAINING_FILE
        if not path.is_file():
            return pd.DataFrame()
        with self._reading(path, ANALYSIS_RECORD):
            training = pd.read_csv(path, dtype={"run": str}).rename(columns=original)
            texts = [
                str(name) for name in training if not pd.api.types.is_numeric_dtype(training[name])
            ]
            training[texts] = training[texts].map(original)
            for name in {*texts} & {*LOGGED_NUMBERS}:  # somebody's log may hold anything
                training[name] = pd.to_numeric(training[name], errors="coerce")
            _require(training, KEY[:2])
            training = training.astype({"step": "int64"})
        # Logs count steps, whatever checkpoints count.
        return (
            training if self.unit != "step" else self._described(training, restarts=self.restarts)
        )

    @property
    def merges(self) -> pd.DataFrame:
        """The effect of every recorded merge on the loss, and the rank of all merges so far.

        One row per run and merge: ``run``, ``step``, ``restart`` (its number), ``loss_before``,
        ``loss_after`` and ``loss_jump`` as logged on the same batch; of ``merged_total``, as means
        over its matrices, ``numerical_rank`` beside the most that the merges' ranks allow,
        ``max_rank``, ``effective_rank`` and ``rank_utilisation``, with its ``least_utilisation``
        and ``most_utilisation``; and ``matrices``, how many of them have ranks. A sum of merges
        that is zero has none. Values are missing if they were not logged, or if ``merged_total``
        was not analysed.

        Examples
        --------
        >>> import rankscope as rs
        >>> rs.open_results("results").merges[["run", "step", "numerical_rank", "max_rank"]]
              run  step  numerical_rank  max_rank
        0  relora    10             2.0       2.0
        1  relora    20             4.0       4.0
        """
        return merge_table(self.rows(component="merged_total"), self.training)

    def spectra(
        self,
        component: str = "weight",
        *,
        run: str | None = None,
        step: int | None = None,
        layer: int | None = None,
        role: Chosen[str] | None = None,
    ) -> pd.DataFrame:
        """Singular values of the selected matrices, one row per value, with their intervals.

        Parameters
        ----------
        component
            Component of the matrices.
        run, step, layer, role
            Only matrices of this run, step and layer, and of this role or one of these.

        Returns
        -------
        Columns run, step, layer, role, component, head, expert, name, index (from 0),
        singular_value, lower, upper, noise_floor. They cover only matrices of the table: the store
        also keeps those of earlier calls, whose checkpoints may have changed since.

        Raises
        ------
        WrongSettingError
            If the table has no such component.
        """
        there = self.distinct(["component"])["component"].tolist()
        if there and component not in there:
            listing = ", ".join(there)
            raise WrongSettingError(f"no rows of {component!r} in `component`: it holds {listing}")
        rows = self.rows(STORED, run=run, step=step, layer=layer, role=role, component=component)
        found = [
            (name, at, entry)
            for name, at, _, entries in by_step(rows, self.path / SPECTRA_FOLDER)
            for entry in entries.values()
        ]
        return _values(found) if found else pd.DataFrame(columns=VALUE_COLUMNS)


def _values(found: Sequence[tuple[str, int, Entry]]) -> pd.DataFrame:
    """One row per singular value."""
    spectra = [entry.spectrum for _, _, entry in found]
    places = pd.DataFrame(
        [
            {"run": run, "step": step, **{name: entry.place[name] for name in MATRIX_COLUMNS}}
            for run, step, entry in found
        ]
    ).astype({"layer": "Int64", "head": "Int64", "expert": "Int64"})
    counts = [spectrum.max_rank for spectrum in spectra]
    values = places.loc[places.index.repeat(counts)].reset_index(drop=True)
    return values.assign(
        index=np.concatenate([np.arange(count) for count in counts]),
        singular_value=np.concatenate([spectrum.values for spectrum in spectra]),
        lower=np.concatenate([spectrum.lower for spectrum in spectra]),
        upper=np.concatenate([spectrum.upper for spectrum in spectra]),
        noise_floor=np.repeat([spectrum.noise_floor for spectrum in spectra], counts),
    )


def open_results(path: str | Path) -> Results:
    """Open a results folder: of an analysis, an evaluation, representations, or all of them.

    Raises
    ------
    WrongSettingError
        If there is nothing at ``path``.
    RankscopeError
        If it is not a results folder.

    Warns
    -----
    RankscopeWarning
        If the call that wrote it was interrupted between its tables.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> sorted(table["component"].unique())
    ['adapter', 'gradient', 'merge', 'merged_total', 'ov', 'update', 'weight']
    """
    path = Path(path)
    if not path.exists():
        raise WrongSettingError(does_not_exist(path), path=path)
    files = (METRICS_FILE, EVALUATION_FILE, REPRESENTATIONS_FILE)
    if not any((path / name).is_file() for name in files):
        raise RankscopeError(
            f"holds none of {', '.join(files)}: give the folder that `rankscope analyze`, "
            "`rankscope evaluate` or `rankscope represent` wrote",
            path=path,
        )
    for record, table, store in WRITTEN:
        is_cut_short = (path / table).is_file() and not (path / record).is_file()
        if is_cut_short and (path / store).is_dir():  # tables alone may be a copy
            message = (
                f"{printable(str(path))}: {table} without {record}: the call that wrote it was "
                "interrupted, and its tables may come from different calls; run it again"
            )
            warnings.warn(RankscopeWarning(message), stacklevel=2)
    return Results(path)
