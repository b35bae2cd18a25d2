"""Write what commands print into the README and docs/: ``python -m tests.rewrite_outputs``.

For when it has changed on purpose. Read the difference: it is what readers will see.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from rankscope.cli.app import app
from tests.documents import PAGES, Block, arguments_of, blocks
from tests.planted import write_planted_runs


def with_output(block: Block) -> str:
    """A console block with what its commands print, run in a folder of planted runs."""
    lines = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_planted_runs(Path("ckpts"))
        for command in block.commands:
            lines += [f"$ {command}", CliRunner().invoke(app, arguments_of(command)).stdout]
    return "\n".join(line.rstrip("\n") for line in lines)


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(page):
            if block.language == "console" and block.output:
                text = text.replace(block.text, with_output(block))
        page.write_text(text, encoding="utf-8")
