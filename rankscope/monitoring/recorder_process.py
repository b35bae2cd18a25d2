"""The training's side of the recorder: starts it, hands over copies, and never waits for it."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

from rankscope.analysis.local_workers import ENVIRONMENT
from rankscope.monitoring.messages import Answer, Closing, Message, Opening
from rankscope.platforms import INHERITS_DESCRIPTORS

PROGRAM = "from rankscope.monitoring.recorder import serve; serve()"


class RecorderProcess:
    """A running recorder.

    Attributes
    ----------
    waiting
        Bytes of copies that it has not measured yet.
    seconds
        Its processor time so far.
    warnings
        What it says that the user should see.
    is_refused
        Whether it cannot write into the results folder.
    """

    def __init__(self, opening: Opening) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
            process_group=0 if INHERITS_DESCRIPTORS else None,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._messages, self._answers = self._process.stdin, self._process.stdout
        self.waiting = 0
        self.seconds = 0.0
        self.warnings: list[str] = []
        self.is_refused = False
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.send(opening)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, message: Message, nbytes: int = 0) -> None:
        """Hand over a message; the recorder takes it in at once, whatever it is doing."""
        with self._lock:
            self.waiting += nbytes
        # It has died, which the next round sees; or it has been closed for that.
        with contextlib.suppress(OSError, ValueError):
            self._messages.write(pickle.dumps(message))
            self._messages.flush()

    def close(self) -> None:
        """Wait until everything is measured and written."""
        self.send(Closing())
        self._listener.join()
        self._process.wait()
        for stream in (self._messages, self._answers):
            with contextlib.suppress(OSError):
                stream.close()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                answer: Answer = pickle.load(self._answers)
                with self._lock:
                    self.waiting -= answer.nbytes
                    self.seconds = max(self.seconds, answer.seconds)
                    self.warnings += filter(None, [answer.warning])
                    self.is_refused |= answer.is_refused
