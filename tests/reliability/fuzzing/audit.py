"""Sees by audit hooks whether a reader runs code, or opens what is not its own."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEAK = "/proc/self/clear_refs"  # where the guard makes the kernel forget a peak of memory
CODE = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen"),
    *("socket.connect", "socket.getaddrinfo", "pickle.find_class", "ctypes.dlopen"),
    *("os.remove", "os.rename", "os.rmdir", "os.chmod", "os.symlink", "os.link", "shutil.rmtree"),
)


@dataclass
class Watch:
    events: list[tuple[str, str]]


def watching(scratch: Path) -> Watch:
    """From now on, note whatever runs code, or opens a file that is not of the mutant."""
    watch = Watch([])
    inside = tuple({str(scratch), str(scratch.resolve())})
    program = tuple(
        {sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[3]), "/proc"}
    )
    readable = (*inside, *program, os.path.realpath(sys.prefix))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, _, flags = arguments
            if isinstance(name, int) or name == PEAK:
                return
            path = _absolute(name)
            if "dask-scratch-space" in path:  # a cluster of another test, which ends here too
                return
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if not path.startswith(inside if writes else readable):
                watch.events.append((event, path))
        elif event in CODE:
            target = str(arguments[0]) if arguments else ""
            is_relative = any(type(one) is int and one >= 0 for one in arguments[1:])
            if not is_relative and not _absolute(target).startswith(inside):
                watch.events.append((event, target))
        elif event == "exec" and not _is_import():
            watch.events.append((event, str(arguments[0])[:100]))

    sys.addaudithook(hook)
    return watch


def _absolute(name: str | bytes | os.PathLike[str]) -> str:
    return os.path.abspath(os.fsdecode(name))  # noqa: PTH100 # without asking the file system


ALLOWED = ("importlib", "dataclasses", "collections/__init__", "functools", "typing")
PAGE = "jinja2/environment"  # makes code of our own template, whatever the results hold


def _is_import() -> bool:
    """Whether the interpreter runs code of its own: an import, or a class that it writes."""
    frame = sys._getframe(2)
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in (*ALLOWED, PAGE)):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
