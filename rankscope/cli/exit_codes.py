"""What the command line's exit status means."""

from __future__ import annotations

WRONG_USE = 2  # an option, a setting or a name that cannot be
PARTIAL = 3  # results are written, but something was skipped
NOTHING_DONE = 4  # nothing could be done, or something was skipped under --strict
NOT_WRITTEN = 5  # the results could not be written
NON_FINITE = 6  # a training stopped on a loss that is not finite
SIGNAL = 128  # plus the number of the signal that interrupted: 130 for SIGINT, 143 for SIGTERM
CLOSED_PIPE = 141  # whoever read the output left
