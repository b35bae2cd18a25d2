"""Wall time, processor time and memory of a command and all processes that it starts.

    python -m benchmarks.memory rankscope analyze ckpts/

Memory is the largest sum over the process tree at any one moment, sampled every 20 ms. There are
two sums: of proportional set sizes (PSS), which count a page that n processes share as 1/n in each,
and of resident set sizes (RSS), which count it n times. Linux only.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PERIOD = 0.02  # seconds between two samples
MEGABYTE = 1e6


@dataclass(frozen=True)
class Measured:
    """Time and memory that a command took.

    Attributes
    ----------
    wall, processor
        Seconds from its start to its end, and seconds of processor time in all its processes.
    pss, rss
        Largest sums over its processes in megabytes; None if memory was not watched.
    own
        Largest PSS of the process of the command alone.
    output
        What it wrote on stdout.
    """

    wall: float
    processor: float
    pss: float | None
    rss: float | None
    own: float | None
    output: str


def measure(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    watch_memory: bool = False,
) -> Measured:
    """Run a command to its end.

    Watching memory takes processor time itself, so measure time and memory in different runs.
    ``env`` is the whole environment of the command, by default that of this process.

    Raises
    ------
    RuntimeError
        If the command fails; the message holds the end of its stderr.
    """
    before = _processor_time()
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = _peak(process) if watch_memory else None
    output, errors = process.communicate()
    wall = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {errors[-2000:]}")
    pss, rss, own = peak if peak else (None, None, None)
    return Measured(wall, _processor_time() - before, pss, rss, own, output)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(process: subprocess.Popen[str]) -> tuple[float, float, float]:
    """Largest sums of PSS and of RSS, and its own PSS, until the process ends.

    It must not fill its pipes.
    """
    pss = rss = own = 0.0
    while process.poll() is None:
        sizes = [_sizes(pid) for pid in (process.pid, *iter_descendants(process.pid))]
        pss = max(pss, sum(size[0] for size in sizes) / MEGABYTE)
        rss = max(rss, sum(size[1] for size in sizes) / MEGABYTE)
        own = max(own, sizes[0][0] / MEGABYTE)
        time.sleep(PERIOD)
    return pss, rss, own


def iter_descendants(pid: int) -> Iterator[int]:
    """Yield the processes that this process started, and those that they started."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has ended
            continue
        for child in map(int, children):
            yield child
            yield from iter_descendants(child)


def _sizes(pid: int) -> tuple[float, float]:
    """PSS and RSS of one process in bytes; zero if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines}
    return sizes.get("Pss", 0.0), sizes.get("Rss", 0.0)


def main() -> None:
    """Measure the given command, including its memory."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: python -m benchmarks.memory COMMAND [ARGUMENT...]")
    measured = measure(sys.argv[1:], watch_memory=True)
    print(measured.output, end="")
    print(json.dumps({k: v for k, v in asdict(measured).items() if k != "output"}), file=sys.stderr)


if __name__ == "__main__":
    main()
