from __future__ import annotations

import gzip
import itertools
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.evaluation.benchmark import benchmarks_of
from rankscope.evaluation.evaluate_question import EvaluateQuestion
from rankscope.evaluation.text_sets import TextSet, text_sets
from rankscope.scoring.text_documents import TextDocument

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "eltec-eng-30.jsonl.xz"
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are those of the command line: relative."""
    monkeypatch.chdir(tmp_path)


def write(path: str, *rows: object) -> Path:
    """A file of lines of JSON, or of its only row as it is where that is a string."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = ".txt" in file.name
    text = str(rows[0]) if plain else "".join(json.dumps(row) + "\n" for row in rows)
    compress: Callable[[bytes], bytes] = COMPRESSIONS.get(file.suffix, bytes)
    file.write_bytes(compress(text.encode()))
    return file


def names_and_files(*given: str) -> dict[str, list[str]]:
    return {one.name: [path.as_posix() for path in one.paths] for one in text_sets(given)}


def texts(one: TextSet, max_documents: int | None = None) -> list[str]:
    return [document.text for document in one.iter_documents(max_documents)]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("book.txt", "book"),
        ("deep/er/book.TXT.gz", "book"),
        ("corpus.v2.jsonl.xz", "corpus.v2"),
        ("c4.00000.json.gz", "c4.00000"),
        ("lang=en.txt", "lang=en"),
        ("lang=en/book.txt", "book"),
        ("odd[1].txt", "odd[1]"),
    ],
)
def test_a_file_is_a_set_that_is_called_like_it(path: str, name: str) -> None:
    write(path, {"text": "a"})
    assert names_and_files(path) == {name: [path]}


@pytest.mark.parametrize("given", ["novels", "./novels/", "novels/../novels"])
def test_a_folder_is_a_set_of_all_that_it_holds(given: str) -> None:
    for path in (
        "b.txt",
        "a/z.jsonl",
        "a/y.json.gz",
        ".hidden.txt",
        ".git/c.txt",
        "c.csv",
        "d.json",
    ):
        write(f"novels/{path}", {"text": "a"})
    found = names_and_files(given)
    assert {name: [Path(p).name for p in files] for name, files in found.items()} == {
        "novels": ["y.json.gz", "z.jsonl", "b.txt"]
    }


@pytest.mark.parametrize("given", [".", ""], ids=["dot", "parent"])
def test_a_folder_is_called_like_what_its_path_stands_for(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("novels/part/a.txt", "a")
    monkeypatch.chdir("novels" if given else "novels/part")
    assert list(names_and_files(given or "..")) == ["novels"]


def test_a_pattern_that_is_named_is_one_set() -> None:
    for source in ("c4", "wiki"):
        write(f"paloma/{source}/val/a.jsonl.gz", {"text": "a"})
        write(f"paloma/{source}/test/a.jsonl.gz", {"text": "a"})
        write(f"paloma/{source}/val.csv", {"text": "a"})
    wanted = ["paloma/c4/val/a.jsonl.gz", "paloma/wiki/val/a.jsonl.gz"]
    assert names_and_files("paloma=paloma/*/val*") == {"paloma": wanted}
    absolute = [str(Path(path).absolute()) for path in wanted]
    assert names_and_files(f"paloma={Path.cwd()}/**/val") == {"paloma": absolute}


def test_each_match_of_an_unnamed_pattern_is_a_set() -> None:
    for name in ("b", "a", "c"):
        write(f"texts/{name}.jsonl", {"text": "a"})
    assert list(names_and_files("texts/*.jsonl")) == ["a", "b", "c"]


def test_values_with_one_name_are_one_set() -> None:
    for path in ("a/x.txt", "b/x.txt"):
        write(path, "a")
    assert names_and_files("both=b", "other=a/x.txt", "both=*/x.txt") == {
        "both": ["b/x.txt", "a/x.txt"],
        "other": ["a/x.txt"],
    }


def test_what_exists_under_the_whole_value_is_no_name() -> None:
    write("lang=en/book.txt", "a")
    write("en/other.txt", "a")
    assert names_and_files("lang=en") == {"lang=en": ["lang=en/book.txt"]}
    assert names_and_files("lang=en/*.txt") == {"book": ["lang=en/book.txt"]}
    shutil.rmtree("lang=en")
    assert names_and_files("lang=en") == {"lang": ["en/other.txt"]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.txt", "b/a.txt"], r"b/a\.txt: cannot be called 'a'.*NAME=PATH"),
        (["a.txt", "a.txt"], "cannot be called 'a'.*NAME=PATH"),
        (["a.txt", "a=b/a.txt"], "cannot be called 'a'"),
        (["a=b/a.txt", "a.txt"], "cannot be called 'a'"),
        (["*/val"], "cannot be called 'val'.*NAME=PATH"),
        (["blimp=a.txt"], "cannot be called 'blimp'"),
        (["blimp.txt"], "cannot be called 'blimp'"),
        (["held-out=a.txt"], "cannot be called 'held-out'"),
        (["missing.txt"], r"'missing\.txt' matches nothing"),
        (["x=missing.txt"], r"'x=missing\.txt' matches nothing"),
        (["none/*.txt"], "matches nothing"),
        (["b/*.csv"], "matches nothing"),
        ([""], "'' matches nothing"),
        (["x="], "'x=' matches nothing"),
        (["b/t.csv"], r"b/t\.csv: is in none of the formats \.txt"),
        (["x=b/t.csv"], r"b/t\.csv: is in none of the formats \.txt"),
        (["empty"], r"empty: holds no file in one of the formats \.txt"),
        (["n" * 300], "cannot be read"),
    ],
    ids=lambda value: "+".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_matches_no_set_is_refused_in_one_line(given: list[str], message: str) -> None:
    for path in ("a.txt", "b/a.txt", "blimp.txt", "b/t.csv", "c4/val/a.txt", "wiki/val/a.txt"):
        write(path, "a")
    Path("empty").mkdir()
    with pytest.raises(RankscopeError, match=message) as error:
        text_sets(given)
    assert "\n" not in str(error.value)


def test_lines_name_the_source_and_the_domain_of_their_text() -> None:
    rows = [
        {"text": "a", "id": 1, "source": "c4_en", "subdomain": "xyz", "metadata": {}},
        {"text": "b", "source": "c4_en", "subdomain": None},
        {"text": "c", "source": 7, "subdomain": ["x"]},
        {"text": "", "source": "c4_en"},
        {"text": "d", "source": ""},
    ]
    write("paloma.jsonl.gz", *rows)
    (one,) = text_sets(["paloma.jsonl.gz"])
    assert list(one.iter_documents(None)) == [
        TextDocument("a", "c4_en", "xyz"),
        TextDocument("b", "c4_en"),
        TextDocument("c"),
        TextDocument("d"),
    ]


def test_a_file_without_sources_is_one() -> None:
    write("set/wiki.jsonl", {"text": "a"}, {"text": "b", "source": "own"})
    write("set/books.v1.txt.xz", "c")
    (one,) = text_sets(["set"])
    assert list(one.iter_documents(None)) == [
        TextDocument("c", "books.v1"),
        TextDocument("a", "wiki"),
        TextDocument("b", "own"),
    ]


@pytest.mark.parametrize(
    ("most", "shares"),
    [
        (1, (0, 0, 1)),
        (3, (1, 1, 1)),
        (4, (1, 1, 2)),
        (6, (2, 1, 3)),
        (9, (3, 1, 5)),
        (99, (5, 1, 5)),
    ],
    ids=str,
)
def test_a_limited_number_of_documents_comes_from_all_files_alike(
    most: int, shares: tuple[int, ...]
) -> None:
    """What a short file lacks comes from those after it; of each file come the first."""
    for name, count in (("a", 5), ("b", 1), ("c", 5)):
        write(f"set/{name}.jsonl", *({"text": f"{name}{i}"} for i in range(count)))
    (one,) = text_sets(["set"])
    wanted = [f"{name}{i}" for name, count in zip("abc", shares, strict=True) for i in range(count)]
    assert texts(one, most) == wanted


@pytest.mark.parametrize("most", [1, 10, 33, 99])
def test_of_more_files_than_wanted_documents_some_are_not_opened(most: int) -> None:
    for number in range(99):
        write(f"set/{number:02}.txt", number)
    (one,) = text_sets(["set"])
    found = [int(text) for text in texts(one, most)]
    assert len(found) == most
    assert {b - a for a, b in itertools.pairwise(found)} <= {99 // most, 99 // most + 1}


def test_a_limit_that_is_high_or_missing_keeps_all_documents() -> None:
    write("a.jsonl", *({"text": str(i)} for i in range(5)))
    (one,) = text_sets(["a.jsonl"])
    assert texts(one) == texts(one, 5) == texts(one, 99) == list("01234")
    assert texts(one, 2) == ["0", "1"]


def test_files_are_opened_only_when_it_is_their_turn() -> None:
    write("set/a.jsonl", {"text": "a"})
    write("set/b.jsonl", "no object")
    (one,) = text_sets(["set"])
    documents = one.iter_documents(None)
    assert next(documents).text == "a"
    with pytest.raises(RankscopeError, match=r"b\.jsonl: line 1"):
        next(documents)


@pytest.mark.parametrize(
    ("path", "row"), [("a.txt", ""), ("a.jsonl", {"text": ""})], ids=["txt", "jsonl"]
)
def test_a_set_without_text_is_refused(path: str, row: object) -> None:
    write(path, row)
    (one,) = text_sets([path])
    with pytest.raises(RankscopeError, match=r"a\..*: holds no text"):
        list(one.iter_documents(None))


def test_the_digest_is_of_bytes_and_names_wherever_they_are() -> None:
    write("set/a.txt", "a")
    write("set/deep/b.txt", "b")
    (one,) = text_sets(["set"])
    shutil.copytree("set", "else/where")
    (moved,) = text_sets([f"name={Path('else/where').absolute()}"])
    assert one.digest() == moved.digest() == one.digest()
    changes = {one.digest()}
    for change in (
        lambda: write("set/a.txt", "b"),
        lambda: Path("set/a.txt").rename("set/c.txt"),
        lambda: write("set/d.txt", ""),
    ):
        change()
        changes.add(text_sets(["set"])[0].digest())
    assert len(changes) == 4


def test_a_file_that_is_gone_is_named() -> None:
    path = write("a.txt", "a")
    (one,) = text_sets(["a.txt"])
    path.unlink()
    for read in (one.digest, lambda: list(one.iter_documents(None))):
        with pytest.raises(RankscopeError, match=r"a\.txt: "):
            read()


def test_documents_are_those_of_the_digest_or_none(tmp_path: Path) -> None:
    """Also where a file is cut at the end of a line, or not read to its end."""
    path = write("a.jsonl", {"text": "one"}, {"text": "two"}, {"text": "three"})
    whole = path.read_text()
    (one,) = text_sets(["a.jsonl"])
    read = one.iter_documents(None)
    assert next(read).text == "one"
    for content in (whole.replace("two", "2"), whole[: whole.index("\n") + 1], whole):
        path.write_text(content)
        with pytest.raises(RankscopeError, match="was written to while it was read"):
            list(one.iter_documents(None))
    with pytest.raises(RankscopeError, match=r"a\.jsonl: was written to"):
        next(read)


@pytest.mark.skipif(not REAL.exists(), reason="the novels are not here")
def test_thirty_novels_are_thirty_documents() -> None:
    (one,) = text_sets([str(REAL)])
    assert one.name == "eltec-eng-30"
    documents = list(one.iter_documents(None))
    assert len(documents) == 30
    assert {(document.source, document.domain) for document in documents} == {(None, None)}
    assert all(len(document.text.split()) > 1000 for document in documents)
    assert list(one.iter_documents(2)) == documents[:2]


@pytest.mark.parametrize(
    ("given", "task"),
    [("pairs.jsonl", "blimp"), ("mine=pairs.jsonl", "mine"), ("a=b.jsonl", "blimp")],
)
def test_pairs_may_have_a_name_and_a_path_may_have_an_equals_sign(given: str, task: str) -> None:
    for name in ("pairs.jsonl", "a=b.jsonl"):
        Path(name).write_text('{"sentence_good": "Cats run.", "sentence_bad": "Cats runs."}\n')
    (only,) = benchmarks_of(EvaluateQuestion(paths=(), blimp=given))
    assert only.name == task
    with pytest.raises(WrongSettingError, match="cannot be called 'agreement'"):
        benchmarks_of(EvaluateQuestion(paths=(), blimp="agreement=pairs.jsonl"))
