"""Small models that train, and a recorder without a process of its own."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from queue import SimpleQueue

import pytest

from rankscope.monitoring.messages import Answer, Closing, Message, Opening
from rankscope.monitoring.recorder import Recorder


class RecorderHere:
    """Carries out all messages when it is closed, as a slow process might: copies must last."""

    def __init__(self, opening: Opening) -> None:
        self.opening = pickle.loads(pickle.dumps(opening))
        self.messages: SimpleQueue[Message | None] = SimpleQueue()
        self.sent: list[Message] = []
        self.waiting, self.seconds, self.is_alive = 0, 0.0, True
        self.warnings: list[str] = []
        self.is_refused = False

    def send(self, message: Message, nbytes: int = 0) -> None:
        self.waiting += nbytes
        self.sent.append(message)
        self.messages.put(pickle.loads(pickle.dumps(message)))

    def close(self) -> None:
        self.send(Closing())
        answers = io.BytesIO()
        Recorder(self.opening, answers).run(self.messages)
        answers.seek(0)
        while answers.tell() < len(answers.getvalue()):
            answer: Answer = pickle.load(answers)
            self.waiting -= answer.nbytes
            self.warnings += filter(None, [answer.warning])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record in this process."""
    monkeypatch.setattr("rankscope.monitoring.monitor.RecorderProcess", RecorderHere)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder
