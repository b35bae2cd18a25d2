from pathlib import Path

import pytest

from rankscope.atomic import require_writable, safe_name, write_atomically


def test_a_failed_write_leaves_the_earlier_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "a b", "", "..", "run\n", "ü", "x" * 300])
def test_a_safe_name_is_one_part_of_a_path_and_of_no_other_text(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe and len(safe) < 100
    assert safe != safe_name(name + "x")


def test_a_plain_name_is_left_as_it_is() -> None:
    assert safe_name("relora-8_b.1") == "relora-8_b.1"


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        require_writable(tmp_path / "file")
