"""`give_memory_back`: what a command that reads large tables does about their memory."""

from __future__ import annotations


def give_memory_back() -> None:
    """Let Arrow take memory from the system, and give it back when a table is done with.

    Its own allocator keeps for the next table what the last one took: some 70 MB of a million rows.
    The choice is for the whole process, so it is left to the command line.
    """
    import pyarrow

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
