"""Runs mutants in a child process, which may die, and sees whether they run code or open files."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, Literal

from rankscope.errors import RankscopeError
from tests.reliability.fuzzing.audit import PEAK, watching
from tests.reliability.fuzzing.kinds import Kind
from tests.reliability.fuzzing.readers import Reader, Seen, quietly

Fate = Literal["as before", "other numbers", "told", "refused", "crash", "outside", "killed"]
FALLEN = ("crash", "outside", "killed")
SECONDS, MEMORY = 5, 2**30  # that one mutant may take, beyond what the process has
WALL = 60  # seconds, for what waits without computing
LITTLE = 2**26  # memory after which the peak is forgotten


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant; its content is kept if a reader fell."""

    number: int
    file: str
    fate: Fate
    why: str = ""
    where: str = ""
    seconds: float = 0.0
    memory: int = 0
    content: bytes = b""


@dataclass(frozen=True)
class Trial:
    """Mutants of one kind: the same honest file, kind, seed and number make the same mutant.

    Attributes
    ----------
    every
        How many mutants there are for one that goes through a whole command; that of the kind if
        it is None.
    """

    name: str
    kind: Kind
    seed: str
    every: int | None = None

    def rng(self, number: int) -> Random:
        """The generator of one mutant."""
        return Random(f"{self.seed}/{self.name}/{number}")

    def mutant(self, honest: dict[Path, bytes], number: int) -> tuple[Path, bytes, Random]:
        """The file that is replaced, and by what."""
        rng = self.rng(number)
        path = rng.choice(list(honest))
        return path, self.kind.mutant(rng, honest[path]), rng

    def reader(self, number: int) -> Reader:
        """How a mutant is read: mostly by the quick reader."""
        whole, every = self.kind.whole, self.every or self.kind.every
        if number % every or not whole:
            return self.kind.read
        return whole[number // every % len(whole)]

    def outcomes(
        self, numbers: range, scratch: Path, known: dict[Reader, Seen] | None = None
    ) -> Iterator[Outcome]:
        """Try mutants, each in a process that goes on with the next unless it dies.

        The honest folder is ``honest`` in the scratch folder, and is left as it was. What readers
        see in it is kept in ``known``; reading it before the fork also loads their modules.
        """
        folder = scratch / "honest"
        clean, honest = _copy_of(folder), self.files(folder)
        assert honest, self.name
        for path in honest:
            os.utime(path, ns=(0, 0))
        known = {} if known is None else known
        for read in {self.reader(number) for number in numbers} - known.keys():
            known[read] = quietly(read, folder)
            _restored(folder, clean)
        while numbers:
            status = yield from _from_child(self, scratch, numbers, known)
            _restored(folder, clean)
            if status.signal == 0:
                return
            number = status.done[-1].number + 1 if status.done else numbers.start
            path, content, _ = self.mutant(honest, number)
            why = f"died of {signal.Signals(status.signal).name}"
            file = path.relative_to(folder).as_posix()
            yield Outcome(number, file, "killed", why, why, content=content)
            numbers = range(number + 1, numbers.stop)

    def files(self, folder: Path) -> dict[Path, bytes]:
        """The honest files that are mutated, below a folder."""
        paths = sorted(one for one in folder.glob(self.kind.files) if one.is_file())
        return {path: path.read_bytes() for path in paths}


class folder_in_memory:
    """A scratch folder, in memory where the machine has such a place."""

    def __enter__(self) -> Path:
        memory = Path("/dev/shm")
        place = memory if os.access(memory, os.W_OK) else None
        self.path = Path(tempfile.mkdtemp(prefix="mutants-", dir=place))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass
class _Status:
    done: list[Outcome]
    signal: int = 0


def _from_child(trial: Trial, scratch: Path, numbers: range, known: dict[Reader, Seen]) -> Any:
    """Yield what a child reports; return what it did and how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            with os.fdopen(writing, "wb") as pipe:
                _tried(trial, scratch, numbers, known, pipe)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    os.close(writing)
    done: list[Outcome] = []
    with os.fdopen(reading, "rb") as pipe:
        try:
            while True:
                outcome = pickle.load(pipe)
                done.append(outcome)
                yield outcome
        except EOFError:
            pass
        except GeneratorExit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"the harness failed after mutant {done[-1:]} of {trial.name}")
    return _Status(done, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)


def _tried(
    trial: Trial, scratch: Path, numbers: range, known: dict[Reader, Seen], pipe: BinaryIO
) -> None:
    """Try mutants and report each, in the child."""
    gc.freeze()  # what the parent has need not be looked through again and again
    folder = scratch / "honest"
    os.environ["HF_HOME"] = str(scratch / "hub")
    tempfile.tempdir = str(scratch)
    os.fsync = lambda _: None  # type: ignore[assignment]
    honest, clean = trial.files(folder), _copy_of(folder)
    watch, peak = watching(scratch), _Peak()
    _limited()
    for number in numbers:
        path, content, _ = trial.mutant(honest, number)
        path.write_bytes(content)
        os.utime(path, ns=(number * 10**6, number * 10**6))  # two mutants are not of one time
        read = trial.reader(number)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL)
        fate, why, where = _fate(read, folder, known[read])
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds, memory = time.process_time() - start, peak.growth()
        if watch.events:
            fate, why = "outside", str(watch.events[0])
            where = why
            watch.events.clear()
        relative = path.relative_to(folder).as_posix()
        fell = content if fate in FALLEN or memory > MEMORY else b""
        pickle.dump(Outcome(number, relative, fate, why, where, seconds, memory, fell), pipe)
        pipe.flush()
        if read in trial.kind.whole:  # a whole command may write
            _restored(folder, clean)
        else:
            path.write_bytes(honest[path])


def _fate(read: Reader, folder: Path, known: Seen) -> tuple[Fate, str, str]:
    try:
        seen = quietly(read, folder)
    except RankscopeError as error:
        return "refused", str(error), ""
    except BaseException as error:  # a library in another language may raise what is no Exception
        return "crash", f"{type(error).__name__}: {error}"[:300], _where(error)
    if set(seen.told) - set(known.told):
        return "told", next(one for one in seen.told if one not in known.told)[:500], ""
    if seen.numbers == known.numbers:
        return "as before", "", ""
    names = {*seen.numbers, *known.numbers}
    other = [name for name in names if seen.numbers.get(name) != known.numbers.get(name)]
    return "other numbers", ", ".join(sorted(other))[:300], ""


def _where(error: BaseException) -> str:
    """The kind of an error and the last place in the package where it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if "/rankscope/" in one.filename and "/tests/" not in one.filename]
    last = own[-1] if own else frames[-1]
    name = last.filename.rpartition("/rankscope/")[2]
    return f"{type(error).__name__} at {name}:{last.lineno} {last.name}"


def _limited() -> None:
    """Limit memory beyond what there is; the kernel ends what computes or waits for too long."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY, size + 2 * MEMORY))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


class _Peak:
    """How much memory is in use at most, beyond what was when it was last forgotten."""

    def __init__(self) -> None:
        self._forget()

    def growth(self) -> int:
        """Bytes since the last call; a little is not forgotten, since that takes its time."""
        grown = self._most() - self._before
        if grown > LITTLE:
            self._forget()
        return grown

    def _forget(self) -> None:
        with open(PEAK, "w") as file:  # noqa: PTH123 # the hook knows it by its name
            file.write("5")
        self._before = self._most()

    @staticmethod
    def _most() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _copy_of(folder: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def _restored(folder: Path, clean: dict[Path, bytes]) -> None:
    for one in folder.rglob("*"):
        if one.is_file() and one not in clean:
            one.unlink()
    for path, content in clean.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
