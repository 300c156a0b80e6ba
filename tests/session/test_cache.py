"""Answers on disk: that they come back as they went, how many may stay, and what damage to one does not do."""

from __future__ import annotations

import copy
import pickle
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm.chat import constraints
from nbllm.core import ToolCall
from nbllm.session import cache as module
from nbllm.session.cache import AnswerCache, default_folder
from nbllm.session.stored import Entry
from tests.session.cached import ANSWER, KEY, OTHER_KEY

KEYS = [f"{number:064x}" for number in range(10)]


@pytest.fixture
def answers(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers")


@contextmanager
def rows(answers: AnswerCache) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(answers.path, isolation_level=None)) as connection:
        yield connection


def test_default_folder_is_the_users_cache() -> None:
    assert default_folder().parts[-2:] == ("nbllm", "answers")


# ---- round trip


def test_answer_comes_back_as_it_went(answers: AnswerCache) -> None:
    assert answers.get(KEY) is None
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == ANSWER
    assert AnswerCache(answers.folder).get(KEY) == ANSWER
    assert answers.get(OTHER_KEY) is None


def test_notes_come_back_with_the_answer(answers: AnswerCache) -> None:
    notes = {"parameters": {"top_p": 0.1, "stop": ["x"]}, "model": "smollm2"}
    answers.put(KEY, ANSWER, notes)
    assert answers.find(KEY) == (ANSWER, notes)


def test_parsed_is_made_again_by_the_requests_constraint(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)
    found = answers.get(KEY, constraints.from_response_format("json_object"))
    assert found is not None
    assert found.parsed == {"a": 1}


def test_value_comes_back_and_is_no_answer(answers: AnswerCache) -> None:
    answers.put_value(KEY, {"yes": -0.25, "no": None})
    assert answers.find_many([KEY]) == {KEY: Entry(value={"yes": -0.25, "no": None})}
    assert answers.get(KEY) is None
    assert answers.num_answers == 1


def test_later_answer_replaces_the_earlier_one(answers: AnswerCache) -> None:
    answers.put(KEY, ANSWER)
    answers.put(KEY, replace(ANSWER, text="newer"))
    found = answers.get(KEY)
    assert found is not None
    assert found.text == "newer"
    assert answers.num_answers == 1


def test_find_many_finds_those_that_are_there(answers: AnswerCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEYS_A_QUERY", 3)
    for number, key in enumerate(KEYS[::2]):
        answers.put(key, replace(ANSWER, text=str(number)))
    found = answers.find_many([*KEYS, *KEYS])
    assert {key: entry.response().text for key, entry in found.items()} == dict(zip(KEYS[::2], "01234", strict=True))
    assert answers.find_many([]) == {}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"finish_reason": "interrupted"}, id="interrupted"),
        pytest.param({"finish_reason": "timeout"}, id="timeout"),
        pytest.param({"finish_reason": "error", "error": ValueError()}, id="error"),
        pytest.param({"finish_reason": "length", "tool_calls": (ToolCall("c", "f", "{"),)}, id="calls"),
        pytest.param({"choices": (ANSWER, ANSWER)}, id="several"),
        pytest.param({"text": "x" * module.MAX_ANSWER_BYTES}, id="too large"),
    ],
)
def test_what_is_not_one_whole_answer_is_not_kept(answers: AnswerCache, changes: dict[str, Any]) -> None:
    answers.put(KEY, replace(ANSWER, **changes))
    assert answers.get(KEY) is None
    assert answers.clear() == 0


@pytest.mark.parametrize("bad", ["../../etc/passwd", KEY.upper(), KEY + "\n", ""])
def test_what_is_no_key_is_refused(answers: AnswerCache, bad: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        answers.get(bad)
    with pytest.raises(ValueError, match="not a key"):
        answers.put(bad, ANSWER)
    with pytest.raises(ValueError, match="not a key"):
        answers.put_value(bad, 1)


def test_looking_makes_no_file(answers: AnswerCache) -> None:
    assert answers.get(KEY) is None
    assert (answers.num_answers, answers.num_bytes, answers.clear()) == (0, 0, 0)
    assert not answers.folder.exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("UPDATE answers SET data = substr(data, 2) WHERE key = ?", id="cut"),
        pytest.param("UPDATE answers SET data = 5 WHERE key = ?", id="a number"),
        pytest.param("UPDATE answers SET data = CAST(data AS TEXT) || 'ä' WHERE key = ?", id="a text"),
        pytest.param("UPDATE answers SET data = (SELECT data FROM answers WHERE key != ?)", id="another's"),
    ],
)
def test_damaged_row_is_as_good_as_none_and_replaced(answers: AnswerCache, change: str) -> None:
    answers.put(KEY, ANSWER)
    answers.put(OTHER_KEY, replace(ANSWER, text="other"))
    with rows(answers) as connection:
        connection.execute(change, [KEY])
    assert answers.get(KEY) is None
    assert answers.get(OTHER_KEY) == replace(ANSWER, text="other")
    answers.put(KEY, ANSWER)
    assert answers.get(KEY) == ANSWER


@pytest.mark.parametrize("column", ["used", "size"])
def test_row_with_a_number_that_is_none_does_no_harm(answers: AnswerCache, column: str) -> None:
    answers.put(KEY, ANSWER)
    with rows(answers) as connection:
        connection.execute(f"UPDATE answers SET {column} = 'abc'")
    assert answers.get(KEY) == ANSWER
    assert answers.num_bytes >= 0


# ---- how many


def test_clear_removes_all_and_leaves_nothing_to_read(answers: AnswerCache) -> None:
    for key in KEYS:
        answers.put(key, replace(ANSWER, text="secret " * 1000))
    foreign = answers.folder / "notes.txt"
    foreign.write_text("mine")
    assert answers.clear() == len(KEYS)
    assert answers.get(KEYS[0]) is None
    assert answers.clear() == 0
    assert (answers.num_answers, answers.num_bytes) == (0, 0)
    assert not [path for path in answers.folder.iterdir() if b"secret" in path.read_bytes()]
    assert foreign.read_text() == "mine"


def test_repr_says_where_how_many_and_how_large(answers: AnswerCache) -> None:
    assert repr(answers) == f"<nbllm.AnswerCache of 0 answers, 0 bytes, in {answers.path}>"
    answers.put(KEY, replace(ANSWER, text="x" * 12_000))
    assert answers.num_bytes > 12_000
    assert f"of 1 answer, {answers.num_bytes / 1000:.1f} KB, in {answers.path}" in repr(answers)


@pytest.mark.parametrize(
    ("num_bytes", "expected"), [(999, "999 bytes"), (1000, "1.0 KB"), (2_500_000, "2.5 MB"), (3 * 10**9, "3.0 GB")]
)
def test_size_is_said_in_a_fitting_unit(num_bytes: int, expected: str) -> None:
    assert module._size(num_bytes) == expected


def test_nbllm_cache_is_the_users_own() -> None:
    assert isinstance(nbllm.cache, AnswerCache)
    assert nbllm.cache.path == default_folder() / "answers.sqlite"
    AnswerCache(default_folder()).put(KEY, ANSWER)
    assert nbllm.cache.get(KEY) == ANSWER
    assert nbllm.cache.clear() >= 1


def test_oldest_used_answers_go_when_they_are_too_many(tmp_path: Path) -> None:
    many = AnswerCache(tmp_path)
    for key in KEYS:
        many.put(key, ANSWER)
    with rows(many) as connection:
        for age, key in enumerate(KEYS):
            connection.execute("UPDATE answers SET used = ? WHERE key = ?", (1000 + age, key))
    assert many.get(KEYS[0]) == ANSWER
    size = many.num_bytes // len(KEYS)
    few = AnswerCache(tmp_path, max_bytes=5 * size)
    few.put(KEY, ANSWER)
    assert few.num_bytes <= 5 * size
    assert list(few.find_many(KEYS)) == [KEYS[0], *KEYS[-2:]]
    assert few.get(KEY) == ANSWER


def test_use_is_noted_once_a_day(answers: AnswerCache) -> None:
    day, now = 86_400, time.time()
    used = {KEYS[0]: now - 2 * day, KEYS[1]: now - day / 2, KEYS[2]: now + 2 * day}
    for key, moment in used.items():
        answers.put(key, ANSWER)
        with rows(answers) as connection:
            connection.execute("UPDATE answers SET used = ? WHERE key = ?", (moment, key))
    answers.find_many(list(used))
    with rows(answers) as connection:
        after = dict(connection.execute("SELECT key, used FROM answers"))
    assert abs(after[KEYS[0]] - now) < day
    assert after[KEYS[1]] == used[KEYS[1]]
    assert abs(after[KEYS[2]] - now) < day  # a clock that was wrong does not keep an answer for ever


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda answers: pickle.loads(pickle.dumps(answers))])
def test_copy_for_another_process_is_of_the_same_file(answers: AnswerCache, copied: Any) -> None:
    answers.put(KEY, ANSWER)
    other = copied(answers)
    assert other.get(KEY) == ANSWER
    assert other.path == answers.path
