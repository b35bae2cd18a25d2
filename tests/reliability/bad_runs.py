"""Runs in which something is wrong beside the weights: folders, links, indices, logs and names.

Each case changes an honest run of steps 1, 2 and 3, mostly its step 2, and says what must come of
it. Whatever is not changed must be measured as if nothing had happened.
"""

from __future__ import annotations

from tests.reliability import bad_configs, bad_folders, bad_logs, bad_names, bad_shards

CASES = (
    *bad_folders.FOLDERS,
    *bad_folders.STEP_NAMES,
    *bad_folders.CLOSED,
    *bad_logs.STATES,
    *bad_logs.LOGS,
    *bad_shards.SHARDS,
    *bad_shards.INDICES,
    *bad_shards.LINKS,
    *bad_configs.CONFIGS,
    *bad_configs.ADAPTERS,
    *bad_names.NAMES,
    *bad_names.RUN_NAMES,
)
