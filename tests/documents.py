"""The README and the pages of docs/ in pieces: blocks of code, commands, options and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("[!.]*/README.md")),
]
PROGRAMS = ("rankscope", "make", "pip", "python", "pytest", "torchrun", "git", "ruff", "mypy")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")


@dataclass(frozen=True)
class Block:
    """A block of code: ``python``, ``toml``, …, or ``console`` for commands and what they print."""

    page: str
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a console block, without the prompt."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.removeprefix("$ ") for line in joined.splitlines()]
        if "$ " in self.text:
            lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        return [line for line in lines if line.split(" ")[0] in PROGRAMS]

    @property
    def output(self) -> str:
        """What the commands of a console block print; empty where it only shows commands."""
        lines = self.text.splitlines() if self.text.startswith("$ ") else []
        return "\n".join(line for line in lines if not line.startswith("$ "))

    @property
    def place(self) -> str:
        """Page and line, for the name of a test."""
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks by their language, and indented ones: commands as ``console``, or ``text``."""
    name, lines = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        if line.startswith("```"):
            end = lines.index("```", number)
            text = "\n".join(lines[number:end])
            yield Block(name, start + 1, line[3:].strip() or "text", text)
            number = end + 1
        elif line.startswith("    ") and (not start or not lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number]):
                number += 1
            text = "\n".join(one[4:] for one in lines[start:number]).rstrip()
            block = Block(name, start + 1, "console", text)
            yield block if block.commands else Block(name, start + 1, "text", text)


def arguments_of(command: str) -> list[str]:
    """The arguments of a command as a shell would pass them, without its name or a comment."""
    return shlex.split(command, comments=True)[1:]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
