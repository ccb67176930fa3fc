"""Values that a user types: read without `eval`, converted to what an annotation says, and written back.

A value is a word (``100``, ``1e-4``, ``true``, ``none``, ``huber``), a quoted text (``"a, b"``, ``'x'``), a
list (``[64,64]`` or ``(64,64)``) or a mapping (``{pi:[64],vf:[64]}``). What a word stands for is decided by
the annotation that it is converted to: ``100`` is a number for an ``int``, and text for a ``str``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

Tree = Any  # a `Word`, text that stood in quotes, a list of trees, or a dict of trees

_WHOLE = re.compile(r"[+-]?[0-9]+(_[0-9]+)*", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9._]+(e[+-]?[0-9]+)?")
_BARE = re.compile(r"[A-Za-z_./][\w./+-]*", re.ASCII)  # texts that are written without quotes
_CLOSING = {"[": "]", "(": ")", "{": "}"}


class Word(str):
    """Text without quotes, which an annotation may turn into a number, a truth value or None."""

    __slots__ = ()


class ConversionError(ValueError):
    """A value that is not what an annotation asks for."""


def split_values(text: str) -> list[str]:
    """Split at commas that stand outside brackets and quotes.

    Raises:
        ValueError: when a bracket or quote stays open, or is closed that was not opened.

    Example:
        >>> split_values("[64,64],[128,128]")
        ['[64,64]', '[128,128]']
    """
    cuts = [-1, *_separators(text, ","), len(text)]
    return [text[start + 1 : end].strip() for start, end in pairwise(cuts)]


def _separators(text: str, separator: str) -> list[int]:
    """Where the separator stands outside brackets and quotes."""
    found: list[int] = []
    open_brackets, at = "", 0
    begins = True  # whether a quote here would begin a text, rather than stand in a word
    while at < len(text):
        character = text[at]
        if character in "\"'" and begins:
            at = _end_of_quote(text, at) - 1
        elif character in _CLOSING:
            open_brackets += _CLOSING[character]
        elif character in "])}":
            if not open_brackets.endswith(character):
                raise ValueError(f"{text!r} closes a bracket {character!r} that it did not open")
            open_brackets = open_brackets[:-1]
        elif character == separator and not open_brackets:
            found.append(at)
        begins = character in ",[({:" or (begins and character == " ")
        at += 1
    if open_brackets:
        raise ValueError(f"{text!r} lacks a closing {open_brackets[-1]!r}")
    return found


def _end_of_quote(text: str, at: int) -> int:
    """Where the quoted text that begins here has ended; ``\\`` escapes in double quotes, as in JSON."""
    quote, end = text[at], at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" and quote == '"' else 1
    if end >= len(text):
        raise ValueError(f"{text!r} lacks a closing {quote}")
    return end + 1


def read_literal(text: str) -> Tree:
    """Read one value into words, quoted texts, lists and dicts; words are not interpreted yet.

    Raises:
        ValueError: when brackets or quotes do not match, a list lacks an element, or a mapping a colon.
    """
    text = text.strip()
    if not text:
        raise ValueError('a value is missing; an empty text is written ""')
    if text[0] in "\"'" and _end_of_quote(text, 0) == len(text):
        if text[0] == "'":
            return text[1:-1]
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            raise ValueError(f"{text} is no text in JSON's quotes") from None
    if text[0] not in _CLOSING or text[-1] != _CLOSING[text[0]]:
        return Word(text)
    elements = split_values(text[1:-1]) if text[1:-1].strip() else []
    if elements and not elements[-1]:
        elements.pop()  # (64,)
    if text[0] != "{":
        return [read_literal(element) for element in elements]
    mapping = {}
    for element in elements:
        colons = _separators(element, ":")
        if not colons:
            raise ValueError(f"{element!r} is no entry of a mapping; write {{name:value}}")
        key = read_literal(element[: colons[0]])
        if not isinstance(key, str):
            raise ValueError(f"{write_literal(key)} is no name in a mapping; write {{name:value}}")
        mapping[str(key)] = read_literal(element[colons[0] + 1 :])
    return mapping


def write_literal(value: Any) -> str:
    """The text that reads back as the value: None, a bool, number or text, or lists and mappings of them.

    Values that `read_literal` gave are written as they were typed.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and isinstance(interpret(Word(value)), str)
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{write_literal(k)}:{write_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(write_literal, value)) + "]"
    return repr(value)


def interpret(tree: Tree) -> Any:
    """What a value stands for where nothing says what is expected: like JSON, and bare words are text."""
    if isinstance(tree, list):
        return [interpret(element) for element in tree]
    if isinstance(tree, dict):
        return {key: interpret(value) for key, value in tree.items()}
    for kind in (NoneType, bool, int, float):
        try:
            return _scalar(tree, kind, exact=True)
        except ConversionError:
            continue
    return str(tree)


def _scalar(tree: Tree, kind: type, exact: bool = False) -> Any:
    if kind is str and isinstance(tree, str):
        return str(tree)
    word = tree.lower() if isinstance(tree, Word) else ""
    if kind is NoneType and word in ("none", "null"):
        return None
    if kind is bool and word in ("true", "false"):
        return word == "true"
    if kind is int and _WHOLE.fullmatch(word):
        return int(word)
    if kind in (int, float) and _NUMBER.fullmatch(word):
        try:
            number = float(word)
        except ValueError:  # 1.2.3, 1__0
            raise ConversionError from None
        if kind is float and math.isfinite(number):
            return number
        if kind is int and not exact and number.is_integer():  # 1e6 steps
            return int(number)
    raise ConversionError


def convert(tree: Tree, hint: Any) -> Any:
    """Convert a value, as read by `read_literal`, to an annotation.

    Args:
        tree: the value.
        hint: bool, int, float, str, None, a Literal, tuple, list, Mapping, a union of them, or Any.

    Raises:
        ConversionError: when the value is something else, or the annotation has no values that can be typed.
    """
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return interpret(tree)
    if origin is Annotated:
        return convert(tree, arguments[0])
    if origin in (Union, UnionType):
        for member in sorted(arguments, key=_rank):
            try:
                return convert(tree, member)
            except ConversionError:
                continue
    elif origin is Literal:
        for choice in arguments:
            if tree in (choice, write_literal(choice)):
                return choice
    elif hint in (bool, int, float, str, None, NoneType):
        return _scalar(tree, hint or NoneType)
    elif origin in (tuple, list, Sequence) and isinstance(tree, list):
        hints: Sequence[Any] = [arguments[0] if arguments else Any] * len(tree)
        if origin is tuple and arguments and arguments[-1] is not ...:
            hints = arguments
        if len(hints) == len(tree):
            values = [convert(element, inner) for element, inner in zip(tree, hints, strict=True)]
            return tuple(values) if origin is tuple else values
    elif origin in (dict, Mapping) and isinstance(tree, dict):
        inner = arguments[1] if arguments else Any
        return {key: convert(value, inner) for key, value in tree.items()}
    raise ConversionError(f"{write_literal(tree)} is not {expected(hint)}")


def _rank(hint: Any) -> int:
    """The order in which a union's members are tried: anything is text, and 1 is a whole number first."""
    order = [NoneType, bool, int, float]
    return order.index(hint) if hint in order else 10 + 10 * (hint in (str, Any))


def expected(hint: Any) -> str:
    """Words for the values that an annotation allows; empty where none of them can be typed.

    Example:
        >>> expected(float | None)
        'a number or none'
    """
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Any: "a value"}
    if origin is Annotated:
        return expected(arguments[0])
    if origin in (Union, UnionType):
        members = sorted(arguments, key=lambda member: member is NoneType)
        return " or ".join(dict.fromkeys(filter(None, map(expected, members))))
    if origin is Literal:
        return "one of " + ", ".join(map(write_literal, arguments))
    if origin in (tuple, list, Sequence):
        fixed = origin is tuple and arguments and arguments[-1] is not ...
        inner = arguments if fixed else arguments[:1]
        example = {int: "64,64", float: "0.5,0.5"}.get(arguments[0] if arguments else Any, "a,b")
        if fixed:
            return f"a list in brackets of {', '.join(map(expected, inner))}"
        return f"a list in brackets, such as [{example}]"
    if origin in (dict, Mapping) or isinstance(hint, Mapping):
        return "a mapping, such as {name:value}"
    if hint in (None, NoneType):
        return "none"
    return next((words for kind, words in simple.items() if hint is kind), "")
