"""The tests on every Python there is here, and with the oldest packages that are allowed.

``nox`` runs all of it and leaves out the interpreters that are missing; ``nox -s tests-3.12``,
``nox -s oldest`` and ``nox -s wheel`` one part.
"""

import re
import tomllib
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOWEST = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<version>[0-9.]+)")
# Every extra of the package that the tests need; what reads the Hub or logs to services is apart.
EXTRAS = ("train", "transformers", "dask", "relora", "remote")

# What the oldest typer and matplotlib use by names that newer versions warn of.
OF_THEIR_TIME = ("click==8.2.1", "pyparsing==3.1.4")

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Everything that ``make test`` runs, with the versions of constraints.txt."""
    session.install("-c", "constraints.txt", ".[all,dev]")
    _run(session, *session.posargs)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The tests with the lower bound of every package in pyproject.toml."""
    bounds = Path(session.create_tmp()) / "oldest.txt"
    bounds.write_text("".join(f"{line}\n" for line in lowest_bounds()), encoding="utf-8")
    session.install("-c", str(bounds), f".[{','.join(EXTRAS)}]", *TEST_PACKAGES, *OF_THEIR_TIME)
    _run(session, *session.posargs)


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """The built wheel alone, in an empty environment."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", session.create_tmp())
    session.install(*map(str, Path(session.create_tmp()).glob("*.whl")))
    session.run("rankscope", "--version")
    session.run("python", "-c", "import rankscope; rankscope.singular_values([[3.0, 0], [0, 4]])")


TEST_PACKAGES = ("hypothesis", "mpmath", "psutil", "pytest", "pytest-xdist")


def lowest_bounds() -> list[str]:
    """``NAME==VERSION`` for every lower bound of the package and of its extras for users."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS for line in extras.get(name, ()))]
    found = [LOWEST.match(line) for line in [*wanted, *extras["torch"]]]
    return [f"{one['name']}=={one['version']}" for one in found if one]


def _run(session: nox.Session, *arguments: str) -> None:
    session.run("pytest", "-q", "-n", "auto", *arguments, env={"OMP_NUM_THREADS": "1"})
