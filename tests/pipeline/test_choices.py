"""What may be asked for, as values and as text, means the same."""

import pytest

from rankscope.errors import WrongSettingError
from rankscope.pipeline.choices import Numbers, layers_of, names_of, steps_of

KNOWN = ("weight", "update", "ov")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("update", ("update",)),
        ("update, weight", ("update", "weight")),
        (["ov"], ("ov",)),
        (iter(["ov", "weight"]), ("ov", "weight")),
        ("all", KNOWN),
        (["update", "all"], KNOWN),
        ([], ()),
    ],
)
def test_names_are_text_or_a_list(given: object, names: tuple[str, ...]) -> None:
    assert names_of(given, KNOWN, setting="components") == names  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["wieght", "weight,", ["weight", "Update"], "u"])
def test_an_unknown_name_is_refused_with_the_known_ones(given: object) -> None:
    words = "unknown name '.*' in `components`: choose from [a-z, ]*, ov, all$"
    with pytest.raises(WrongSettingError, match=words):
        names_of(given, KNOWN, setting="components")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["none", ["none"], "", [], ()])
def test_no_name_may_be_said(given: object) -> None:
    assert names_of(given, KNOWN, setting="compare", none=True) == ()  # type: ignore[arg-type]


def test_what_may_be_said_is_listed() -> None:
    with pytest.raises(WrongSettingError, match=r"choose from ov, none, weight, update, all$"):
        names_of("ove", KNOWN, setting="compare", none=True)


@pytest.mark.parametrize("given", ["weight,none", ["none", "none"]])
def test_none_stands_alone(given: object) -> None:
    with pytest.raises(WrongSettingError, match="none cannot be combined with other names"):
        names_of(given, KNOWN, setting="compare", none=True)  # type: ignore[arg-type]


def chosen(numbers: Numbers | None) -> list[int]:
    assert numbers is not None
    return [number for number in range(12) if number in numbers]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0,3,6", [0, 3, 6]), ("0,3,6", (0, 3, 6)), ("0:4", range(5)), ("9:", {9, 10, 11})],
)
def test_layers_as_text_are_layers_as_values(text: str, value: object) -> None:
    assert chosen(layers_of(text)) == chosen(layers_of(value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0,3,6", [0, 3, 6]),
        ("2:8:3", (2, 8, 3)),
        (":8", (0, 8, 1)),
        ("4:", (4, None, 1)),
        ("::4", (0, None, 4)),
        ("0:4", range(5)),
    ],
)
def test_steps_as_text_are_steps_as_values(text: str, value: object) -> None:
    assert chosen(steps_of(text)) == chosen(steps_of(value))  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", [layers_of, steps_of])
def test_a_range_of_layers_or_steps_includes_its_last_number(choice: object) -> None:
    assert chosen(choice("2:4")) == [2, 3, 4]  # type: ignore[operator]


@pytest.mark.parametrize("text", ["0,3,6", "2:8:3", "4::1", "3"])
def test_a_choice_in_words_is_the_same_choice(text: str) -> None:
    numbers = steps_of(text)
    assert steps_of(str(numbers)) == numbers


def test_nothing_given_is_nothing_chosen() -> None:
    assert layers_of(None) is None and steps_of(None) is None
    assert None not in Numbers()  # what is in no layer is in no choice of layers


@pytest.mark.parametrize("given", ["a:b", "x", "1:2:3:4", "0,5:7", "", "1.5", [1.5], ["a"]])
def test_what_is_neither_a_list_nor_a_range_is_refused(given: object) -> None:
    for choice, setting in ((layers_of, "layers"), (steps_of, "steps")):
        with pytest.raises(WrongSettingError, match=f"`{setting}` .* is neither like 0,"):
            choice(given)  # type: ignore[operator]


@pytest.mark.parametrize("given", ["0:9:0", (0, 9, -1)])
def test_a_stride_that_stands_still_is_refused(given: object) -> None:
    with pytest.raises(WrongSettingError, match="stride of `steps`"):
        steps_of(given)  # type: ignore[arg-type]
