"""The files of a results folder, and the columns of its tables with their types.

Imports nothing, so that tables can be written without loading pandas.
"""

from __future__ import annotations

METRICS_FILE, METRICS_CSV = "metrics.parquet", "metrics.csv"
TRAINING_FILE, SPECTRA_FOLDER = "training.csv", "spectra"
ROWS_FOLDER = "rows"  # of each step, from which the table is put together
SHARDS_FOLDER = "shards"  # what each shard has computed, until a plain call takes it over
ANALYSIS_RECORD, ANALYSIS_SKIPS = "analysis.json", "skipped.jsonl"
SUBSPACES_FILE, SUBSPACES_CSV, SUBSPACES_FOLDER = "subspaces.parquet", "subspaces.csv", "subspaces"
ORIGINS_FOLDER = "origins"  # of a monitor: copies of matrices where cumulative updates begin
EVALUATION_FILE, EVALUATION_CSV, SCORES_FOLDER = "evaluation.parquet", "evaluation.csv", "scores"
EVALUATION_RECORD, EVALUATION_SKIPS = "evaluation.json", "evaluation-skipped.jsonl"
REPRESENTATIONS_FILE, REPRESENTATIONS_CSV = "representations.parquet", "representations.csv"
REPRESENTATIONS_FOLDER = "representations"
SIMILARITIES_FILE, SIMILARITIES_CSV = "similarities.parquet", "similarities.csv"
INPUT_ENERGIES_FILE, INPUT_ENERGIES_CSV = "input_energies.parquet", "input_energies.csv"
REPRESENTATIONS_RECORD = "representations.json"
REPRESENTATIONS_SKIPS = "representations-skipped.jsonl"
STORES = (
    SPECTRA_FOLDER,
    SUBSPACES_FOLDER,
    SCORES_FOLDER,
    ROWS_FOLDER,
    SHARDS_FOLDER,
    REPRESENTATIONS_FOLDER,
)
TABLES = (METRICS_FILE, EVALUATION_FILE, REPRESENTATIONS_FILE)
RECORDS = (ANALYSIS_RECORD, EVALUATION_RECORD, REPRESENTATIONS_RECORD)
# Everything that calls write into a results folder, which may be among checkpoints.
OWN = frozenset(
    (
        *(*STORES, ORIGINS_FOLDER, *TABLES, *RECORDS),
        *(METRICS_CSV, TRAINING_FILE, SUBSPACES_FILE, SUBSPACES_CSV, EVALUATION_CSV),
        *(REPRESENTATIONS_CSV, SIMILARITIES_FILE, SIMILARITIES_CSV),
        *(INPUT_ENERGIES_FILE, INPUT_ENERGIES_CSV),
        *(ANALYSIS_SKIPS, EVALUATION_SKIPS, REPRESENTATIONS_SKIPS),
    )
)

MEASURED = ("ok", "zero", "vector", "empty")  # statuses; any other says why there is no spectrum
METRICS = (
    "effective_rank",
    "per",
    "per_error",
    "per_resolved",
    "per_gaussian",
    "rank_utilisation",
    "stable_rank",
    "participation_ratio",
    "svd_entropy",
    "energy_rank_90",
    "energy_rank_99",
    "tail_index",
    "tail_index_error",
    "tail_index_gaussian",
    "outliers",
    "noise_floor",
    "noise_source",
    "significant_bits",
    "numerical_rank",
    "condition_number",
    "condition_number_status",
    "condition_number_raw",
    "condition_number_r",
    "condition_number_90",
    "noise_share",
    "signal_to_noise",
    "relative_size",
    "relative_size_error",
    "update_cosine",
    "update_cosine_error",
    "update_cosine_bias",
    "entry_gini",
    "entry_hoyer",
    "spectral_norm",
    "frobenius_norm",
    "nuclear_norm",
    "max_rank",
    "sigma_error",
    "route",
)
KEY = ("run", "step", "layer", "role", "component", "head", "expert", "name")
WINDOW = ("since", "restarts", "window")
COLUMNS = (*KEY, *WINDOW, "rows", "cols", "dtype", "status", *METRICS)
WHOLE = (
    *("step", "layer", "head", "expert", "since", "restarts"),
    *("rows", "cols", "significant_bits", "numerical_rank", "max_rank"),
    *("energy_rank_90", "energy_rank_99", "outliers"),
)
TEXT = (
    "run",
    "role",
    "component",
    "name",
    "window",
    "dtype",
    "status",
    "noise_source",
    "condition_number_status",
    "route",
)

# Of the columns of a log, those that figures and comparisons take for numbers.
LOGGED_NUMBERS = (
    *("loss", "validation_loss", "learning_rate", "captured_energy"),
    *("restart", "loss_before", "loss_after", "loss_jump"),
)

SUBSPACE_COLUMNS = (
    *("run", "step", "against", "layer", "role", "component", "head", "expert", "name"),
    *("measure", "side", "k", "value", "error", "noise", "null", "status"),
)
SUBSPACE_WHOLE = ("step", "against", "layer", "head", "expert", "k")
SUBSPACE_TEXT = ("run", "role", "component", "name", "measure", "side", "status")

EVALUATION_COLUMNS = (
    *("run", "step", "task", "group", "metric"),
    *("value", "ci_low", "ci_high", "n"),
)
EVALUATION_WHOLE, EVALUATION_TEXT = ("step", "n"), ("run", "task", "group", "metric")
