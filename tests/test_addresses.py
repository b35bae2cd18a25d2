"""Addresses that went through the paths of another system."""

from pathlib import Path, PureWindowsPath

import pytest

from rankscope.addresses import is_address, is_stand_in, scheme_and_rest, shown


@pytest.mark.parametrize("address", ["hf://ORG/NAME@step8/a", "s3://b/run", "https://h:80/x"])
def test_an_address_is_one_on_windows_too(address: str) -> None:
    there = PureWindowsPath(address)
    assert "\\" in str(there) and is_address(there)  # type: ignore[arg-type]
    assert scheme_and_rest(there) == scheme_and_rest(address)  # type: ignore[arg-type]
    assert shown(there) == address  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["C:\\runs\\relora", "C:/runs", "\\\\server\\share", "a\\b"])
def test_a_path_of_windows_is_no_address(path: str) -> None:
    assert not is_address(PureWindowsPath(path))  # type: ignore[arg-type]
    assert shown(PureWindowsPath(path)) == str(PureWindowsPath(path))  # type: ignore[arg-type]


def test_a_port_is_shown_as_it_was_given_though_no_name_may_have_a_colon() -> None:
    path = "C:\\cache\\rankscope-elsewhere\\http\\[%3A%3A1]%3A8000\\run\\a%3Ab"
    assert is_stand_in(path) and shown(path) == "http://[::1]:8000/run/a%3Ab"
    assert not is_stand_in(Path("ckpts"))
