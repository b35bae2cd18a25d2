"""Build the documentation site: ``python docs/site/build.py OUT [--results RESULTS]``.

The pages of the repository are copied as they are, so that their links to each other hold. A
reference of the commands is added, taken from the program; one of the Python names, taken from
their docstrings; and a gallery, drawn by the scripts in figures/.

Why Sphinx: it is the best kept of its kind, and reads both our docstrings and our Markdown. The
scripts in figures/ take a folder of results, so they are run here as a user runs them, and not by
an extension that would import them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import rankscope
from rankscope.cli.app import app

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
COPIED = ("docs", "configs", "notebooks", "figures", "rankscope", "benchmarks", "studies")
PAGES = {
    "Guide": ("docs/recipes", "docs/checkpoints", "docs/diagnose", "docs/figures", "docs/comparing",
              "docs/numerics", "docs/watching", "docs/monitor", "docs/remote", "docs/scaling",
              "docs/clusters", "docs/evaluation", "docs/representations", "docs/training",
              "docs/relora", "configs/README",
              "studies/relora-small/README"),
    "Reference": ("commands", "api", "gallery"),
    "Project": ("docs/design", "CONTRIBUTING", "benchmarks/README", "CHANGELOG", "SECURITY"),
}  # fmt: skip
NAMES = {
    "configs/README": "Presets",
    "benchmarks/README": "Benchmarks",
    "studies/relora-small/README": "The study",
}


def main() -> None:
    """Build the site; a warning, such as one about a link that leads nowhere, is an error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path, help="draw the gallery from these results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder), given.results)
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", str(HERE)]
        subprocess.run([*command, folder, str(given.out)], check=True)


def stage(folder: Path, results: Path | None) -> None:
    """Put every page of the site, and the files that pages link to, into a folder."""
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "site", "*.pdf", ".*")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*.cff"), ROOT / "LICENSE"]:
        shutil.copy(path, folder)
    (folder / "README.md").rename(folder / "index.md")
    with (folder / "index.md").open("a", encoding="utf-8") as index:
        index.write("\n" + "\n".join(toctrees()))
    (folder / "commands.md").write_text("\n".join(command_pages()), encoding="utf-8")
    (folder / "api.md").write_text("\n".join(api_page()), encoding="utf-8")
    (folder / "gallery.md").write_text("\n".join(gallery_page(folder, results)), encoding="utf-8")


def toctrees() -> Iterator[str]:
    """The table of contents, which the hidden part of the first page declares."""
    for caption, pages in PAGES.items():
        named = [f"{NAMES[page]} <{page}>" if page in NAMES else page for page in pages]
        yield from ("```{toctree}", ":hidden:", f":caption: {caption}", "", *named, "```", "")


def command_pages() -> Iterator[str]:
    """Every command with its help, arguments and options, as the program prints them."""
    yield "# Commands\n"
    yield "Generated from the program; `rankscope COMMAND --help` prints the same.\n"
    for name, text in walked(typer.main.get_command(app), "rankscope"):
        yield from (f"## `{name}`", "", "```text", text.replace("\b\n", ""), "```", "")


def walked(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """The help of a command and of those below it, by their full names."""
    context = command.context_class(command, info_name=name, terminal_width=100)
    yield name, command.get_help(context)
    for below, found in getattr(command, "commands", {}).items():
        if not found.hidden:
            yield from walked(found, f"{name} {below}")


def api_page() -> Iterator[str]:
    """The public names with their docstrings."""
    yield "# Python\n"
    yield inspect.cleandoc(rankscope.__doc__ or "").partition("\n")[0] + "\n"
    of_rooms = ("plots", "relora")
    yield from documented("rankscope", [name for name in rankscope.__all__ if name not in of_rooms])
    yield "\n## Figures: `rankscope.plots`\n"
    yield from documented("rankscope.plots", rankscope.plots.__all__)
    yield "\n## Training: `rankscope.relora`\n"
    yield from documented("rankscope.relora", rankscope.relora.__all__)


def documented(module: str, names: list[str]) -> Iterator[str]:
    """Directives that read the docstrings of these names."""
    home = __import__(module, fromlist=["_"])
    yield "```{eval-rst}"
    for name in names:
        found = getattr(home, name)
        if inspect.isclass(found):
            yield from (f".. autoclass:: {module}.{name}", "   :members:", "")
        elif callable(found):
            yield from (f".. autofunction:: {module}.{name}", "")
        elif inspect.ismodule(found):
            yield from (f".. automodule:: {found.__name__}", "")
    yield "```\n"


def gallery_page(folder: Path, results: Path | None) -> Iterator[str]:
    """Every script in figures/ with the figure that it draws and its code."""
    yield "# Gallery\n"
    yield "Each figure with the script that draws it, to copy and change: "
    yield "`python figures/NAME.py RESULTS`.\n"
    if results is None:
        yield "Drawn from two made-up runs whose singular values are prescribed.\n"
        results = planted_results(folder / ".planted")
    for script in sorted((ROOT / "figures").glob("*.py")):
        code = script.read_text(encoding="utf-8")
        about = ast.get_docstring(ast.parse(code)) or script.stem
        yield f"## {script.stem}\n\n{about.replace('``', '`')}\n"
        drawing = [sys.executable, str(script), str(results), "--out", str(folder / "drawn")]
        done = subprocess.run(drawing, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield f"![{about.splitlines()[0]}](drawn/{script.stem}.png)\n"
        else:
            yield f"*Not drawn here: {done.stderr.strip().rpartition(': ')[2]}.*\n"
        yield f"<details><summary>figures/{script.name}</summary>\n"
        yield f"```python\n{code}```\n\n</details>\n"
    shutil.rmtree(folder / ".planted", ignore_errors=True)


def planted_results(folder: Path) -> Path:
    """Results of the two made-up runs that the examples of the documentation are tested on."""
    sys.path.insert(0, str(ROOT))
    from tests.planted import write_planted_runs

    write_planted_runs(folder / "ckpts")
    rankscope.analyze(folder / "ckpts", out=folder / "results", jobs=1)
    return folder / "results"


if __name__ == "__main__":
    main()
