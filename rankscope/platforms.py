"""What Linux, macOS and Windows do differently, as far as the package depends on it.

No other module asks on which of them it runs.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# numpy's linear algebra may not survive a fork elsewhere, and Windows has none.
FORKS = sys.platform == "linux"
# Windows has neither process groups nor file descriptors that a child can inherit.
INHERITS_DESCRIPTORS = sys.platform != "win32"
# Windows opens no folder as a file; its file systems keep a journal of names.
FLUSHES_FOLDERS = sys.platform != "win32"
# Windows translates line ends unless told otherwise, and would wait for the writer of a pipe.
BINARY = getattr(os, "O_BINARY", 0)
READ_REGULAR = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
# Names that Windows keeps for devices, whatever follows the first dot.
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)
# What else no name on Windows may hold; it also loses dots and spaces at its end.
FORBIDDEN = frozenset('<>:"|?*') | frozenset(map(chr, range(32)))
LIMITS_NAMES = sys.platform == "win32"
# Windows gives no other name to what a reader or a scanner of viruses has open for a moment.
PATIENCE = 2.0 if sys.platform == "win32" else 0.0  # seconds
BELOW_NORMAL = 0x4000  # the priority class of Windows
_PROCESS = "/proc/{}/stat"


def flush(descriptor: int) -> None:
    """Wait until what was written to a file is on the disk, not only in the disk's own memory."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:  # a file system that has no such call, such as one over the network
            pass
    os.fsync(descriptor)


def replace(source: Path, target: Path) -> None:
    """Give a file or a folder another name, in place of a file that has it.

    Where what is open cannot be renamed, it is tried again until it is closed, for two seconds.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.02)


def can_be_name(name: str) -> bool:
    """Whether a file of this system can have a name that is one on Unix."""
    if not LIMITS_NAMES:
        return True
    is_device = name.partition(".")[0].rstrip(" ").lower() in DEVICES
    return not (is_device or name.endswith((".", " ")) or FORBIDDEN.intersection(name))


def memory_of_machine() -> int:
    """Bytes of memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, and some other systems
        import psutil

        return int(psutil.virtual_memory().total)


def cache_of_user() -> Path:
    """Folder for what programs keep of this user and can make again."""
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    stated = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return Path(stated or "~/.cache").expanduser().absolute()


def hub_home() -> Path:
    """Folder of the programs of the Hugging Face hub, which is the same on every system."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser()


def load_of_machine() -> float | None:
    """Mean number of running processes over the last minute; None where the system has no count."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None  # Windows: psutil's substitute counts from its own start, so it begins at zero


def yield_processors(nice: int) -> None:
    """Let other processes go first; ``nice`` is Unix's measure of it, from 0 to 19."""
    try:
        os.nice(nice)
    except OSError:  # not allowed: then it works beside them
        pass
    except AttributeError:  # Windows
        import psutil

        if nice:
            psutil.Process().nice(BELOW_NORMAL)


def process_beginning(number: int) -> str | None:
    """When a process began, as text that no other process of this number has.

    Returns ``ended`` if there is none, or if it has ended and nobody has asked how; None if there
    is one and its beginning cannot be found out.
    """
    if not Path(_PROCESS.format("self")).exists():
        return _beginning_elsewhere(number)
    try:
        about = Path(_PROCESS.format(number)).read_bytes()
    except OSError:
        return None if _is_running(number) else "ended"
    # From the kernel itself: what psutil says here moves when the clock of the machine is set.
    state, *fields = about.rpartition(b")")[2].split()
    return "ended" if state in (b"Z", b"X") else fields[18].decode()


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there is one, of another user
        pass
    return True


def _beginning_elsewhere(number: int) -> str | None:
    """As `process_beginning`; not by `os.kill`, which on Windows interrupts the process."""
    import psutil

    try:
        process = psutil.Process(number)
        if process.status() == psutil.STATUS_ZOMBIE:
            return "ended"
        return repr(process.create_time())
    except psutil.NoSuchProcess:
        return "ended"
    except psutil.AccessDenied:
        return None
