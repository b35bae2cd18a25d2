import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rankscope.errors import RankscopeError
from rankscope.results.vectors import OtherVersionError, read_vectors, write_vectors

VECTORS = {"values": np.linspace(0, 1, 40), "counts": np.arange(5)}
ABOUT = {"entries": [{"key": "a", "place": {"layer": None, "name": "wq"}}], "floor": 1e-7}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_vectors(tmp_path / "step.safetensors", VECTORS, ABOUT, version="2")
    return tmp_path / "step.safetensors"


def test_what_is_written_is_read_back_bit_for_bit(path: Path) -> None:
    vectors, about = read_vectors(path, version="2")
    assert about == ABOUT
    assert {name: v.tobytes() for name, v in vectors.items()} == {
        name: v.tobytes() for name, v in VECTORS.items()
    }


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    turned = dict(reversed(VECTORS.items()))
    write_vectors(tmp_path / "again", turned, ABOUT, version="2")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_description_is_one_json_document_with_a_digest_of_it_all(path: Path) -> None:
    size = int.from_bytes(path.read_bytes()[:8], "little")
    text = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["rankscope"]
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(["2", ABOUT], separators=(",", ":")).encode())
    for name, vector in sorted(VECTORS.items()):
        digest.update(f"\n{name} {vector.dtype.str} {vector.shape}\n".encode() + vector.tobytes())
    whole = {"version": "2", "digest": digest.hexdigest(), "about": ABOUT}
    assert text == json.dumps(whole, separators=(",", ":"))


@pytest.mark.parametrize("older", [(), ("0", "3", "6")])
@pytest.mark.parametrize("bit", range(8))
@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_noticed(path: Path, bit: int, older: tuple[str, ...]) -> None:
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(RankscopeError, match="is damaged"):
            read_vectors(path, version="2", older=older)


def test_another_spelling_of_a_number_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    assert b"1e-07" in content
    path.write_bytes(content.replace(b"1e-07", b"1E-07"))
    with pytest.raises(RankscopeError, match="digest"):
        read_vectors(path, version="2")


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x02\0\0\0\0\0\0\0{}", save(VECTORS)])
def test_a_foreign_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(RankscopeError, match="bad: is damaged"):
        read_vectors(tmp_path / "bad", version="2")


def test_another_version_is_not_damage(path: Path) -> None:
    with pytest.raises(OtherVersionError, match="is of version 2, not 3"):
        read_vectors(path, version="3")
    assert read_vectors(path, version="3", older=("2",))[1] == ABOUT


def test_a_description_that_was_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "edited"
    write_vectors(path, VECTORS, ABOUT, version="2")
    content = path.read_bytes()
    changed = content.replace(b"wq", b"wk")
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(RankscopeError, match="digest"):
        read_vectors(path, version="2")


def test_a_file_without_a_digest_is_read_only_as_an_older_version(
    tmp_path: Path,
) -> None:
    about = {"version": "1", "key": "k"}
    (tmp_path / "old").write_bytes(save(VECTORS, metadata={"rankscope": json.dumps(about)}))
    vectors, found = read_vectors(tmp_path / "old", version="2", older=("1",))
    assert found == about
    assert vectors["counts"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(OtherVersionError):
        read_vectors(tmp_path / "old", version="2")
