"""`agreement_pairs`: minimal pairs of agreement in number, made by a small grammar; no file needed.

Every paradigm is balanced: each context comes once in the singular and once in the plural, so that
the word that is right in one pair is the one that is wrong in the next. A model that only knows how
frequent words are, or prefers short sentences, is right in exactly half of the pairs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rankscope.scoring.blimp import Blimp, Paradigm

CONTEXTS = 100  # of each paradigm, with two pairs each
FIELD = "morphology"
GOLDEN = (math.sqrt(5) - 1) / 2  # of its multiples, none is near another before long
Forms = tuple[str, str]  # singular, plural
Frame = tuple[str, Forms]
Pair = tuple[str, str]

PEOPLE: tuple[Forms, ...] = (
    *(("baker", "bakers"), ("pilot", "pilots"), ("teacher", "teachers"), ("farmer", "farmers")),
    *(("doctor", "doctors"), ("singer", "singers"), ("neighbour", "neighbours")),
    *(("child", "children"), ("woman", "women"), ("sister", "sisters"), ("guest", "guests")),
)
MEN: tuple[Forms, ...] = (
    *(("man", "men"), ("boy", "boys"), ("king", "kings"), ("uncle", "uncles")),
    *(("father", "fathers"), ("brother", "brothers")),
)
WOMEN: tuple[Forms, ...] = (
    *(("woman", "women"), ("girl", "girls"), ("queen", "queens"), ("aunt", "aunts")),
    *(("mother", "mothers"), ("sister", "sisters")),
)
GENDERED = (*((noun, "himself") for noun in MEN), *((noun, "herself") for noun in WOMEN))
THINGS: tuple[Forms, ...] = (
    *(("map", "maps"), ("key", "keys"), ("letter", "letters"), ("box", "boxes")),
    *(("cup", "cups"), ("knife", "knives"), ("book", "books"), ("stone", "stones")),
    *(("city", "cities"), ("coat", "coats"), ("picture", "pictures")),
)
VERBS: tuple[Forms, ...] = (
    *(("sings", "sing"), ("sleeps", "sleep"), ("laughs", "laugh"), ("works", "work")),
    *(("is late", "are late"), ("was asleep", "were asleep"), ("has left", "have left")),
)
KNOWS: tuple[Forms, ...] = (("knows", "know"), ("sees", "see"), ("likes", "like"))
DETERMINERS: tuple[Forms, ...] = (("this", "these"), ("that", "those"))
OPENINGS = ("The", "Our", "Your")
NEAR = ("near", "behind", "beside", "in front of")
ADJECTIVES = ("old", "new", "small", "heavy", "green")
WHO = ("Mary", "Peter", "She", "He")
FOUND = ("found", "took", "painted", "forgot", "wanted")
HURT = ("hurt", "blamed", "praised", "saw", "helped")


def agreement_pairs(*, pairs: int | None = None) -> Blimp:
    """Minimal pairs of agreement in number, the same ones always.

    The verb agrees with its subject, next to it, or with a phrase or a clause between the two whose
    noun has the other number; a noun with its determiner, also with an adjective between the two;
    a reflexive pronoun with its subject. Phenomena have the names that they have in BLiMP, but the
    words and patterns are few and simple: compare accuracies of models with each other, not with
    those on BLiMP.

    Parameters
    ----------
    pairs
        Take at most this many pairs of each paradigm, the first ones; None for all, 200 of each.
        Any even number is balanced.

    Examples
    --------
    >>> for good, bad in agreement_pairs(pairs=2).pairs[:2]:
    ...     print(good, "/", bad)
    Mary found this old map. / Mary found this old maps.
    Mary found these old maps. / Mary found these old map.
    """
    found = {uid: [*_iter_pairs(uid)][:pairs] for uid in _PARADIGMS}
    paradigms = (Paradigm(uid, _PARADIGMS[uid][0], FIELD, len(some)) for uid, some in found.items())
    return Blimp(tuple(paradigms), tuple(pair for some in found.values() for pair in some))


def agreement_digest() -> str:
    """Digest of all pairs."""
    lines = "".join(f"{good}\n{bad}\n" for good, bad in agreement_pairs().pairs)
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _subject_verb(n: int, opening: str, noun: Forms, verb: Forms) -> Frame:
    return f"{opening} {noun[n]}", verb


def _subject_verb_phrase(
    n: int, opening: str, noun: Forms, near: str, other: Forms, verb: Forms
) -> Frame:
    return f"{opening} {noun[n]} {near} the {other[1 - n]}", verb


def _subject_verb_clause(n: int, noun: Forms, other: Forms, knows: Forms, verb: Forms) -> Frame:
    return f"The {noun[n]} that the {other[1 - n]} {knows[1 - n]}", verb


def _determiner_noun(n: int, who: str, found: str, determiner: Forms, noun: Forms) -> Frame:
    return f"{who} {found} {determiner[n]}", noun


def _determiner_adjective_noun(
    n: int, who: str, found: str, determiner: Forms, adjective: str, noun: Forms
) -> Frame:
    return f"{who} {found} {determiner[n]} {adjective}", noun


def _reflexive(n: int, opening: str, person: tuple[Forms, str], hurt: str) -> Frame:
    noun, pronoun = person
    return f"{opening} {noun[n]} {hurt}", (pronoun, "themselves")


_SUBJECT_VERB, _DETERMINER_NOUN = "subject_verb_agreement", "determiner_noun_agreement"
# By name: the phenomenon, what precedes the word that differs, and the words to choose from.
_PARADIGMS: dict[str, tuple[str, Callable[..., Frame], tuple[Sequence[Any], ...]]] = {
    "determiner_adjective_noun": (
        _DETERMINER_NOUN,
        _determiner_adjective_noun,
        (WHO, FOUND, DETERMINERS, ADJECTIVES, THINGS),
    ),
    "determiner_noun": (_DETERMINER_NOUN, _determiner_noun, (WHO, FOUND, DETERMINERS, THINGS)),
    "reflexive": ("anaphor_agreement", _reflexive, (OPENINGS, GENDERED, HURT)),
    "subject_verb": (_SUBJECT_VERB, _subject_verb, (OPENINGS, PEOPLE, VERBS)),
    "subject_verb_clause": (_SUBJECT_VERB, _subject_verb_clause, (PEOPLE, MEN, KNOWS, VERBS)),
    "subject_verb_phrase": (
        _SUBJECT_VERB,
        _subject_verb_phrase,
        (OPENINGS, PEOPLE, NEAR, MEN, VERBS),
    ),
}


def _iter_pairs(uid: str) -> Iterator[Pair]:
    """Yield the pairs of a paradigm, each context in the singular and in the plural."""
    _, frame, words = _PARADIGMS[uid]
    for chosen in _iter_spread(words):
        for n in (0, 1):
            start, forms = frame(n, *chosen)
            yield f"{start} {forms[n]}.", f"{start} {forms[1 - n]}."


def _iter_spread(words: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """Yield `CONTEXTS` different choices of one word of each list, spread over all of them."""
    sizes = [len(some) for some in words]
    total = math.prod(sizes)
    step = next(k for k in range(round(GOLDEN * total), total) if math.gcd(k, total) == 1)
    for number in range(CONTEXTS):
        at, chosen = number * step % total, []
        for some, size in zip(words, sizes, strict=True):
            at, place = divmod(at, size)
            chosen.append(some[place])
        yield chosen
