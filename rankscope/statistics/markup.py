r"""Labels, in which ``$…$`` is mathematics, as LaTeX and as literal text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rankscope.errors import printable
from rankscope.statistics.latex_table import latex_text

IN_LATEX = {sign: f"${sign}$" for sign in "<>|"}  # others in the fonts of old
IN_LATEX |= {
    "κ": r"$\kappa$",
    "σ": r"$\sigma$",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "…": r"\ldots{}",
    "→": r"$\to$",
    "≥": r"$\ge$",
}
SYMBOLS = {
    "alpha": "α",
    "kappa": "κ",
    "sigma": "σ",
    "lambda": "λ",
    "Delta": "Δ",
    "|": "‖",
    "lceil": "⌈",
}
SYMBOLS |= {"rceil": "⌉", "uparrow": "↑", "times": "×", "log": "log", " ": " "}
MARKUP = re.compile(r"\\\$|\$[^$]*\$")
COMMAND = re.compile(r"\\(?:([A-Za-z]+) ?|([| ]))")


def latex(markup: str) -> str:
    r"""Text with ``$…$`` and ``\$`` as in labels, for LaTeX.

    Examples
    --------
    >>> print(latex(r"10 to 90 % of a_b, $\kappa_r$"))
    10 to 90 \% of a\_b, $\kappa_r$
    """
    parts = (part if is_math else _in_latex(part) for part, is_math in _pieces(markup))
    return "".join(parts)


def plain_text(markup: str) -> str:
    r"""Text with ``$…$`` and ``\$`` as in labels, on one line and with letters for symbols.

    Examples
    --------
    >>> print(plain_text(r"$\kappa_{90}$ of \$HOME"))
    κ_90 of $HOME
    """
    parts = (_as_letters(part) if is_math else part for part, is_math in _pieces(markup))
    return " ".join("".join(parts).split())


def _pieces(markup: str) -> Iterator[tuple[str, bool]]:
    """Parts of a text, and whether each is a formula."""
    at = 0
    for found in MARKUP.finditer(markup):
        yield markup[at : found.start()], False
        yield ("$", False) if found[0] == r"\$" else (found[0], True)
        at = found.end()
    yield markup[at:], False


def _in_latex(text: str) -> str:
    return "".join(IN_LATEX.get(character, character) for character in latex_text(text))


def _as_letters(formula: str) -> str:
    shown = COMMAND.sub(
        lambda found: SYMBOLS.get(found[1] or found[2], found[1] or found[2]), formula.strip("$")
    )
    return shown.replace("{", "").replace("}", "")


def literal(text: object, *, limit: int = 40) -> str:
    """Text for a title or a legend that matplotlib shows as it is.

    Run names come from folders and files: a pair of ``$`` would be read as mathematics, and may
    fail to parse only when the figure is saved; a leading ``_`` would hide a legend entry. Text
    longer than ``limit`` characters loses its middle, since names of runs often differ at the end.
    """
    return escaped(shortened(text, limit))


def shortened(text: object, limit: int) -> str:
    """The text without its middle, if it is longer than the limit."""
    shown = printable(str(text), limit=1000)
    half = limit // 2
    return shown if len(shown) <= limit else f"{shown[:half]}…{shown[-half:]}"


def escaped(text: str) -> str:
    """The text with signs that labels would read as commands shown as they are."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
