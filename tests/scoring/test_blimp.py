from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.scoring.blimp import Paradigm, blimp_digest, read_blimp

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
# The paper's table of phenomena: how many paradigms each has.
PAPER = {
    "anaphor_agreement": 2,
    "argument_structure": 9,
    "binding": 7,
    "control_raising": 5,
    "determiner_noun_agreement": 8,
    "ellipsis": 2,
    "filler_gap_dependency": 7,
    "irregular_forms": 2,
    "island_effects": 8,
    "npi_licensing": 7,
    "quantifiers": 4,
    "subject_verb_agreement": 6,
}
Rows = list[dict[str, object]]


def rows_of(
    uid: str, *, count: int = 3, term: str = "binding", area: str = "syntax"
) -> list[dict[str, object]]:
    return [
        {
            "sentence_good": f"Good {uid} {i}.",
            "sentence_bad": f"Bad {uid} {i}.",
            "field": area,
            "linguistics_term": term,
            "UID": uid,
            "pairID": str(i),
        }
        for i in range(count)
    ]


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, files: dict[str, Rows]) -> Path:
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(lines(rows), encoding="utf-8")
    return folder


def as_zip(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # in no helpful order
            archive.write(file, file.relative_to(folder))
    return path


def as_folder(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("form", [as_folder, as_zip], ids=["folder", "zip"])
@pytest.mark.parametrize("inner", ["", "data/", "blimp-1/data/"], ids=["flat", "data", "deep"])
def test_paradigms_are_sorted_wherever_their_files_lie(
    tmp_path: Path, form: Callable[[Path], Path], inner: str
) -> None:
    folder = write(
        tmp_path / "pairs",
        {f"{inner}{uid}.jsonl": rows_of(uid, count=i) for i, uid in enumerate("cab", start=1)},
    )
    (folder / "README.md").write_text("what it is")
    (folder / ".DS_Store").write_bytes(b"\0")
    write(folder, {"__MACOSX/data/._a.jsonl": [], "__MACOSX/a.jsonl": [], ".git/a.jsonl": []})
    (folder / "__MACOSX" / "data" / "._a.jsonl").write_bytes(b"\0\5\x16\7 no text \xb0")
    read = read_blimp(form(folder))
    assert read.paradigms == tuple(
        Paradigm(uid, "binding", "syntax", count) for uid, count in (("a", 2), ("b", 3), ("c", 1))
    )
    expected = [
        (f"Good {u} {i}.", f"Bad {u} {i}.")
        for u, n in (("a", 2), ("b", 3), ("c", 1))
        for i in range(n)
    ]
    assert list(read.pairs) == expected


def test_the_form_does_not_change_the_pairs(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", {"a.jsonl": rows_of("a"), "b.jsonl": rows_of("b")})
    together = write(tmp_path / "other", {"data/all.jsonl": rows_of("b") + rows_of("a")})
    assert read_blimp(as_zip(folder)) == read_blimp(folder) == read_blimp(together)
    assert read_blimp(together / "data" / "all.jsonl") == read_blimp(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"sentence_good": "Another."},
        {"sentence_bad": "Another."},
        {"UID": "another"},
        {"field": "another"},
        {"linguistics_term": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_used_changes_the_digest(tmp_path: Path, change: dict[str, object]) -> None:
    [row] = rows_of("a", count=1)
    before = write(tmp_path / "before", {"a.jsonl": [row]})
    after = write(tmp_path / "after", {"a.jsonl": [row | change]})
    assert blimp_digest(before) != blimp_digest(after)
    assert read_blimp(before) != read_blimp(after)
    ignored = write(tmp_path / "ignored", {"a.jsonl": [row | {"pairID": "7", "x": [1]}]})
    assert read_blimp(before) == read_blimp(ignored)


def test_the_digest_is_of_names_and_bytes_wherever_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", {"a.jsonl": rows_of("a"), "b/b.jsonl": rows_of("b")})
    kept = {path: blimp_digest(path) for path in (folder, as_zip(folder), folder / "a.jsonl")}
    assert len(set(kept.values())) == 3
    (folder / "notes.txt").write_text("no pairs")
    assert blimp_digest(folder) == kept[folder]
    moved = folder.rename(tmp_path / "moved")
    assert blimp_digest(moved) == kept[folder]
    (moved / "a.jsonl").rename(moved / "c.jsonl")  # a file names the paradigm of its pairs
    assert blimp_digest(moved) != kept[folder]


@pytest.mark.parametrize("pairs", [1, 2, 3, 9])
def test_the_first_pairs_of_each_paradigm_are_taken(tmp_path: Path, pairs: int) -> None:
    folder = write(tmp_path / "pairs", {f"{u}.jsonl": rows_of(u, count=3) for u in "ab"})
    cut = write(tmp_path / "cut", {f"{u}.jsonl": rows_of(u, count=3)[:pairs] for u in "ab"})
    assert read_blimp(folder, pairs=pairs) == read_blimp(cut)


def test_other_sets_of_minimal_pairs_need_only_sentences(tmp_path: Path) -> None:
    pair: dict[str, object] = {"sentence_good": "A dog barks.", "sentence_bad": "A dog bark."}
    folder = write(tmp_path, {"agreement.jsonl": [pair, pair | {"UID": None, "field": ""}]})
    assert read_blimp(folder).paradigms == (Paradigm("agreement", "", "", 2),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("s-selection", "syntax"), ("argument_structure", "syntax")),
        (("binding", "syntax/semantics"), ("binding", "syntax_semantics")),
        (("npi_licensing", "semantics"), ("npi_licensing", "semantics")),
    ],
    ids=["s-selection", "slash", "as-it-is"],
)
def test_phenomena_and_fields_are_those_of_the_paper(
    tmp_path: Path, given: tuple[str, str], expected: tuple[str, str]
) -> None:
    folder = write(tmp_path, {"a.jsonl": rows_of("a", term=given[0], area=given[1])})
    assert read_blimp(folder).paradigms == (Paradigm("a", *expected, 3),)


def test_any_line_ends_and_any_sentences_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    pair = {"sentence_good": "Élan\u2028vital.", "sentence_bad": "\u0085 x"}
    line = json.dumps(pair, ensure_ascii=False).encode()
    file.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    assert read_blimp(file).pairs == (("Élan\u2028vital.", "\u0085 x"),) * 2


GOOD = '{"sentence_good": "A.", "sentence_bad": "B."}\n'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is not JSON"),
        ("[1]", "not an object"),
        ('{"sentence_good": "A."}', 'no "sentence_bad"'),
        ('{"sentence_good": 1, "sentence_bad": "B."}', '"sentence_good" is not a string'),
        ('{"sentence_good": null, "sentence_bad": "B."}', '"sentence_good" is not a string'),
        ('{"sentence_good": "A.", "sentence_bad": " "}', '"sentence_bad" is empty'),
        ('{"sentence_good": "\\ud800", "sentence_bad": "B."}', "not UTF-8"),
        ('{"sentence_good": "A.", "sentence_bad": "B.", "UID": 3}', '"UID" is not a string'),
        ('{"sentence_good": "A.", "sentence_bad": "B.", "field": "x"}', "another linguistics_term"),
        ("[" * 100_000, "recursion"),
    ],
    ids=[
        "no-json",
        "no-object",
        "missing",
        "number",
        "null",
        "empty",
        "surrogate",
        "uid",
        "two-fields",
        "deep",
    ],
)
@pytest.mark.parametrize("form", [as_folder, as_zip], ids=["folder", "zip"])
def test_a_bad_line_is_named(
    tmp_path: Path, form: Callable[[Path], Path], line: str, reason: str
) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "a.jsonl").write_text(f"{GOOD}\n{line}\n{GOOD}")
    path = form(folder)
    with pytest.raises(RankscopeError, match=reason) as caught:
        read_blimp(path)
    assert caught.value.path == str(path / "a.jsonl")
    assert "line 3 " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD.encode() + b'{"sentence_good": "\xff", "sentence_bad": "B."}')
    with pytest.raises(RankscopeError, match="line 2 is not a minimal pair: it is not UTF-8"):
        read_blimp(file)


def test_a_paradigm_in_two_files_would_count_twice(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.jsonl": rows_of("a"), "copy/a.jsonl": rows_of("a")})
    with pytest.raises(RankscopeError, match=r"'a', as does .*a\.jsonl") as caught:
        read_blimp(folder)
    assert caught.value.path == str(folder / "copy" / "a.jsonl")


def test_what_holds_no_pairs_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing")
    blank = tmp_path / "blank.jsonl"
    blank.write_text("\n\n")
    for path in (empty, as_zip(empty), blank):
        with pytest.raises(RankscopeError, match="holds no pairs") as caught:
            read_blimp(path)
        assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["absent", "absent.zip", "absent.jsonl"])
def test_an_absent_path_is_named(tmp_path: Path, name: str) -> None:
    for read in (read_blimp, blimp_digest):
        with pytest.raises(WrongSettingError, match=f"{name}: does not exist"):
            read(tmp_path / name)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(GOOD)
    for read in (read_blimp, blimp_digest):
        with pytest.raises(WrongSettingError, match=r"not a folder, nor a \.jsonl or \.zip"):
            read(tmp_path / "pairs.csv")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = as_zip(write(tmp_path / "pairs", {"a.jsonl": rows_of("a", count=50)}))
    whole = path.read_bytes()
    for damaged in (b"", b"PK\3\4", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(RankscopeError, match="cannot be unpacked") as caught:
            read_blimp(path)
        assert caught.value.path == str(path)
    path.write_bytes(whole[:60] + bytes(40) + whole[100:])
    with pytest.raises(RankscopeError, match="cannot be unpacked") as caught:
        read_blimp(path)
    assert caught.value.path == str(path / "a.jsonl")


@pytest.mark.slow
def test_the_published_set_has_the_paper_s_phenomena() -> None:
    path = DATA / "BLiMP.zip"
    if not path.exists():
        pytest.skip("needs the published pairs")
    read = read_blimp(path)
    assert Counter(paradigm.phenomenon for paradigm in read.paradigms) == PAPER
    assert {paradigm.count for paradigm in read.paradigms} == {1000}
    assert len(read.pairs) == 67_000
    assert {paradigm.field for paradigm in read.paradigms} == {
        "morphology",
        "semantics",
        "syntax",
        "syntax_semantics",
    }
    assert sum(good == bad for good, bad in read.pairs) == 7
