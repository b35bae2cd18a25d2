"""Minimal pairs about agreement, in the form of BLiMP, for tests: a few words and four patterns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

NOUNS = (("baker", "bakers"), ("child", "children"), ("goose", "geese"), ("pilot", "pilots"))
VERBS = (("sings", "sing"), ("is", "are"), ("has", "have"))
ENDS = {"sings": "", "sing": "", "is": " late", "are": " late", "has": " left", "have": " left"}
DETERMINERS = (("this", "these"), ("that", "those"))
NEAR = ("", "beside the lake ", "of our village ")
Pair = tuple[str, str]


def iter_subject_verb() -> Iterator[Pair]:
    """The verb agrees with the noun, which something may stand between; or it does not."""
    for near, noun, verb, number in product(NEAR, NOUNS, VERBS, (0, 1)):
        subject = f"The {noun[number]} {near}"
        good, bad = (f"{subject}{form}{ENDS[form]}." for form in (verb[number], verb[1 - number]))
        yield good, bad


def iter_determiner_noun() -> Iterator[Pair]:
    """The noun agrees with its determiner, or does not."""
    for determiner, noun, number in product(DETERMINERS, NOUNS, (0, 1)):
        greeting = f"Mary greets {determiner[number]}"
        yield f"{greeting} {noun[number]}.", f"{greeting} {noun[1 - number]}."


PARADIGMS = {
    "own_subject_verb": ("subject_verb_agreement", iter_subject_verb),
    "own_determiner_noun": ("determiner_noun_agreement", iter_determiner_noun),
}


def write_agreement(folder: Path) -> Path:
    """Write a file for each paradigm into a new folder, and return the folder."""
    folder.mkdir()
    for uid, (term, iter_pairs) in PARADIGMS.items():
        lines = [
            json.dumps(
                {
                    "sentence_good": good,
                    "sentence_bad": bad,
                    "field": "morphology",
                    "linguistics_term": term,
                    "UID": uid,
                    "pairID": str(number),
                }
            )
            for number, (good, bad) in enumerate(iter_pairs())
        ]
        (folder / f"{uid}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def good_sentences() -> list[str]:
    """Every good sentence, to be learned from."""
    return [good for _, iter_pairs in PARADIGMS.values() for good, _ in iter_pairs()]
