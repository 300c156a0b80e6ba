from __future__ import annotations

from collections.abc import Iterator
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygments.token import STANDARD_TYPES, Token

from nbllm.markup import highlighted as module
from nbllm.markup.highlighted import Piece, highlighted

LANGUAGES = ["python", "ipython", "js", "html", "json", "bash", "sql", "yaml", "c", "diff", "console", "latex", "toml"]


class Lexer:
    """Takes three characters for a keyword, and then does as it is told."""

    def __init__(self, rest: Any) -> None:
        self.rest = rest

    def __call__(self, **options: object) -> Lexer:
        return self

    def get_tokens(self, code: str) -> Iterator[tuple[Any, str]]:
        yield Token.Keyword, code[:3]
        yield from self.rest(code[3:])


def fails(rest: str) -> Iterator[tuple[Any, str]]:
    raise RecursionError


def drops(rest: str) -> Iterator[tuple[Any, str]]:
    yield Token.Name, rest[1:]


def makes_kinds_of_its_own(rest: str) -> Iterator[tuple[Any, str]]:
    yield Token.Name.Function.Of.My.Own, rest


def goes_by_characters(rest: str) -> Iterator[tuple[Any, str]]:
    yield from ((Token.Name, character) for character in rest)


def lexed_by(monkeypatch: pytest.MonkeyPatch, rest: Any) -> list[Piece]:
    monkeypatch.setattr(module, "_lexer_class", lambda language: Lexer(rest))
    return highlighted("abcdef", "x")


@given(st.sampled_from(LANGUAGES), st.text(st.sampled_from("\"'\\(){}<>/*#$%&=:;-\n\t ab1") | st.characters()))
@settings(max_examples=150, deadline=None)
def test_pieces_are_the_code(language: str, code: str) -> None:
    pieces = highlighted(code, language)
    assert "".join(piece.text for piece in pieces) == code
    assert all(piece.kind in STANDARD_TYPES.values() and piece.text for piece in pieces)
    assert all(before.kind != after.kind for before, after in pairwise(pieces))


@pytest.mark.parametrize("language", ["", "no-such", "<img>", "../x", "x" * 500])
def test_unknown_language_is_plain(language: str) -> None:
    assert highlighted("if x: pass", language) == [Piece("", "if x: pass")]


def test_very_long_code_is_plain() -> None:
    code = "if x: pass\n" * 5000
    assert highlighted(code, "python") == [Piece("", code)]


@pytest.mark.parametrize("rest", [fails, drops])
def test_lexer_that_fails_leaves_plain_code(monkeypatch: pytest.MonkeyPatch, rest: Any) -> None:
    assert lexed_by(monkeypatch, rest) == [Piece("", "abcdef")]


def test_unusual_kind_is_the_usual_one_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lexed_by(monkeypatch, makes_kinds_of_its_own) == [Piece("k", "abc"), Piece("nf", "def")]


def test_slow_lexer_colours_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count(0.0, 0.4)
    monkeypatch.setattr(module, "time", SimpleNamespace(thread_time=lambda: next(seconds)))
    assert lexed_by(monkeypatch, goes_by_characters) == [Piece("k", "abc"), Piece("n", "de"), Piece("", "f")]
