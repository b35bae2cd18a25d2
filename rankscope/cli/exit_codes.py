"""The exit codes of the command line, and what each of them means."""

from __future__ import annotations

FOUND_ERROR = 1
WRONG_USE = 2
PARTIAL = 3
NOTHING_DONE = 4
NOT_WRITTEN = 5
NON_FINITE = 6
SIGNAL = 128  # plus the number of the signal
CLOSED_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

MEANINGS = {
    "0": "everything found was done",
    "1": "diagnose found an error",
    "2": "wrong option, setting or name, or named data that is missing",
    "3": "results are written, but something was skipped",
    "4": "nothing could be done, or --strict and something was skipped",
    "5": "results could not be written",
    "6": "training stopped: the loss was not finite",
    "130, 143": "interrupted; what was finished is kept",
    "141": "the reader of the output closed it, as `head` does",
}
