"""Values as users type them: what they stand for, what is refused, and that what is written reads back."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.experiments.runs.literals import (
    ConversionError,
    convert,
    expected,
    interpret,
    read_literal,
    split_values,
    write_literal,
)

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_what_is_written_reads_back(value: Any) -> None:
    text = write_literal(value)
    again = interpret(read_literal(text))
    assert again == value
    assert type(again) is type(value)  # 1 is not 1.0, nor true


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_values_of_a_sweep_read_back(values: list[Any]) -> None:
    parts = split_values(",".join(map(write_literal, values)))
    assert [interpret(read_literal(part)) for part in parts] == values


@settings(deadline=None)
@given(st.text())
def test_no_text_does_anything_but_read_or_be_refused(text: str) -> None:
    try:
        for part in split_values(text):
            read_literal(part)
    except ValueError as error:
        assert str(error)  # noqa: PT017  # any text may be typed


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("100", int, 100),
        ("1_000_000", int, 1_000_000),
        ("1e6", int, 1_000_000),
        ("-3", int, -3),
        ("3", float, 3.0),
        ("1e-4", float, 1e-4),
        (".5", float, 0.5),
        ("True", bool, True),
        ("100", str, "100"),
        ("none", str, "none"),
        ("None", float | None, None),
        ("null", int | None, None),
        ("2", int | float, 2),
        ("2.5", int | float, 2.5),
        ("auto", str | float, "auto"),
        ("0.1", str | float, 0.1),
        ('"0.1"', str | float, "0.1"),
        ("none", Literal["none", "dart"], "none"),
        ("2", Literal[1, 2], 2),
        ("[64, 64]", tuple[int, ...], (64, 64)),
        ("(1,2)", tuple[float, ...], (1.0, 2.0)),
        ("(64,)", tuple[int, ...], (64,)),
        ("[]", list[int], []),
        ("[1,episode]", int | tuple[int, str], (1, "episode")),
        ("{pi:[64],vf:[]}", dict[str, list[int]], {"pi": [64], "vf": []}),
        ("{a:1}", Mapping[str, float], {"a": 1.0}),
        ("[1,true,x,'y, z']", Any, [1, True, "x", "y, z"]),
        ("don't", str, "don't"),
    ],
)
def test_a_value_is_what_the_annotation_says(text: str, hint: Any, value: Any) -> None:
    [part] = split_values(text)
    found = convert(read_literal(part), hint)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "hint", "words"),
    [
        ("fast", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("true", int, "a whole number"),
        ('"3"', int, "a whole number"),
        ("1__0", float, "a number"),
        ("1.2.3", float, "a number"),
        ("٣", int, "a whole number"),
        ("nan", float, "a number"),
        ("1e999", float, "a number"),
        ("yes", bool, "true or false"),
        ("1", bool, "true or false"),
        ("none", float, "a number"),
        ("[1]", str, "text"),
        ("cubic", Literal["linear", "none"], "one of linear, "),
        ("[1,x]", tuple[int, ...], "a list in brackets, such as [64,64]"),
        ("[1]", tuple[int, str], "a list in brackets of a whole number, text"),
        ("x", int | None, "a whole number or none"),
        ("x", type[int] | None, "none"),
        ("__import__('os')", float, "a number"),
    ],
)
def test_another_type_is_refused_with_what_is_expected(text: str, hint: Any, words: str) -> None:
    with pytest.raises(ConversionError):
        convert(read_literal(text), hint)
    assert words in expected(hint)


@pytest.mark.parametrize("hint", [type[int], object, bytes])
def test_what_cannot_be_typed_has_no_words(hint: Any) -> None:
    assert expected(hint) == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("50,100,250", ["50", "100", "250"]),
        ("[64,64],[128,128]", ["[64,64]", "[128,128]"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("{pi:[1,2]}", ["{pi:[1,2]}"]),
        ("1, 2", ["1", "2"]),
        (r'"\",",x', [r'"\","', "x"]),
    ],
)
def test_commas_outside_brackets_and_quotes_separate_values(text: str, parts: list[str]) -> None:
    assert split_values(text) == parts


@pytest.mark.parametrize("text", ["[1", "1]", "[1)", "'a", '"a', "[1,'b]"])
def test_brackets_and_quotes_must_close(text: str) -> None:
    with pytest.raises(ValueError, match=r"lacks a closing|did not open"):
        split_values(text)
