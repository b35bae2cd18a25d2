"""Text and token files: prepared once, opened lazily, and batches as functions of the step."""
