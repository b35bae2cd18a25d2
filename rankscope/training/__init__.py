"""A thin trainer of small language models with full-rank and with low-rank updates.

It is the only part of the package that needs torch. What it learns reaches the analysis as files,
like everybody else's checkpoints.
"""
