from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbllm.frames.compare.columns import input_of, turns_of

_TURNS = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})


@given(st.lists(_TURNS, min_size=1, max_size=4))
def test_messages_can_be_read_from_an_input(turns: list[dict[str, str]]) -> None:
    assert turns_of(input_of(turns)) == turns


def test_a_text_that_looks_like_messages_stays_a_text() -> None:
    text = input_of([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    assert turns_of(input_of([{"role": "user", "content": text}])) == [{"role": "user", "content": text}]


def test_system_comes_first_where_there_is_one() -> None:
    assert [turn["role"] for turn in turns_of("hi", "be brief")] == ["system", "user"]
    assert turns_of("hi", float("nan")) == turns_of("hi", "") == [{"role": "user", "content": "hi"}]
