"""Running a command in several processes at once, as torchrun does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Timer

from tests.reliability.commands import started_command

ROOT = Path(__file__).parents[2]


class Ended:
    """What a process left behind."""

    def __init__(self, code: int | None, output: str) -> None:
        self.code, self.output = code, output


def environments(size: int) -> list[dict[str, str]]:
    """What torchrun tells each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if sys.platform == "linux":
        shared |= {"GLOO_SOCKET_IFNAME": "lo"}  # whatever the machine's name resolves to
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def run_commands(
    *arguments: str, size: int = 2, before: Callable[[], object] = lambda: None
) -> list[Ended]:
    """Run ``rankscope ARGUMENTS`` as torchrun would, in forked children; none is left behind."""

    def begin(variables: dict[str, str]) -> None:
        os.environ.update(variables)
        before()

    children = [
        started_command(*arguments, before=partial(begin, one), output=2)
        for one in environments(size)
    ]
    left = list(children)  # who has ended cannot be killed

    def end() -> None:
        for child in left:
            child.kill()

    limit = Timer(240.0, end)
    limit.start()
    ended = []
    try:
        for child in children:
            ended.append(child.ended())
            left.remove(child)
    finally:
        limit.cancel()
    return [Ended(one.code, one.said) for one in ended]


def run_processes(
    folder: Path, *arguments: str, size: int = 2, limit: float = 240.0
) -> list[Ended]:
    """Run ``python ARGUMENTS`` as torchrun would, several times at once; none is left behind.

    When one has failed, the others have half a minute to notice.
    """
    started: list[subprocess.Popen[bytes]] = []
    outputs = [folder / f"output-{rank}.txt" for rank in range(size)]
    try:
        for variables, output in zip(environments(size), outputs, strict=True):
            with output.open("wb") as file:  # a pipe that nobody reads would stop its process
                started.append(
                    subprocess.Popen(
                        [sys.executable, *arguments],
                        env=os.environ | variables,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )
        deadline = time.monotonic() + limit
        while any(process.poll() is None for process in started) and time.monotonic() < deadline:
            if any(process.poll() for process in started):
                deadline = min(deadline, time.monotonic() + 30)  # a busy machine
            time.sleep(0.02)
        codes = [process.poll() for process in started]  # None: did not end in time
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [Ended(code, path.read_text()) for code, path in zip(codes, outputs, strict=True)]
