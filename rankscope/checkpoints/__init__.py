"""Checkpoints on disk: runs, steps, and tensors by name, opened lazily.

The room answers three questions in turn. To read it, follow one path from the top down:

Which checkpoints are a run, and at which step?
    `discovery` is the door. `folder_tree` says what is in a folder and which of it is a checkpoint;
    `tree_runs` finds the runs in that tree, and `tree_places` says what became of the rest
    (`survey` has both types). The steps come from names, in this order: `name_words`, `name_parts`
    (one name), `alike_names` (names that differ in numbers), `sibling_names` (all names of a
    folder), `series` with `series_titles` and `beside_series` (checkpoints), `folder_series` (a
    folder). `steps` reads the step of a single name or state file. `hub_folder` and `cache_runs`
    do the same for the cache of the Hugging Face hub. The result is a `run`.

How do the files store tensors?
    ``files/`` reads bytes into `tensors` (`regions` are parts of those); ``layouts/`` has one file
    per on-disk layout, which returns `contents`; ``slicing/`` joins what several processes saved.
    `options` is what the user says about reading.

What is each tensor?
    `assembly` has the order of work: ``adapters/`` finds low-rank factors, ``families/`` knows
    names, and `account` puts every tensor into one class.

What others ask about a run is in `merges`, `continuity` (does a checkpoint continue the one
before?), `same_weights`, `training_log` and `description`.
"""
