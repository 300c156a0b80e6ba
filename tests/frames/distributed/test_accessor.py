"""The verbs over partitions, against the same verbs over the whole frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

from nbllm.core import Request
from nbllm.engine.interface import OnChunk
from nbllm.errors import EngineError, InvalidRequestError, ParameterError
from nbllm.frames.accessor import FrameAccessor
from nbllm.frames.compare.methods import HOMES
from nbllm.frames.distributed import partitions
from nbllm.frames.distributed.accessor import DaskFrameAccessor
from nbllm.frames.distributed.models import Sent
from nbllm.frames.templates import TemplateError
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from nbllm.testing.script import ScriptedTicket
from tests.frames.answering import prompt

_QUIET: dict[str, Any] = {"cache": False, "max_tokens": 6, "reproducible": True}
_WORDS = ["good", None, "bad", "new", "bad", "red", None, "old"]
_FRAME = pd.DataFrame({"word": pd.Series(_WORDS, dtype="str"), "other": pd.Series([*"abcdefgh"], dtype="str")})
_FRAME.index = pd.Index([0, 1, 1, 2, 3, 5, 8, 8])

Verb = Callable[[Any, dict[str, Any]], Any]


def _longer(options: dict[str, Any]) -> dict[str, Any]:
    """Room for an object or a list to end."""
    return {**options, "max_tokens": 60}


_OF_BOTH: dict[str, Verb] = {
    "map": lambda llm, options: llm.map("say {word}", **options),
    "map with details": lambda llm, options: llm.map("{word}", details=True, temperature=1.5, seed=3, **options),
    "map of truths": lambda llm, options: llm.map("{word}?", response_format={"type": "boolean"}, **options),
    "prompts": lambda llm, options: llm.prompts("say {word}", **options),
}
_OF_FRAMES: dict[str, Verb] = {
    **_OF_BOTH,
    "classify": lambda llm, options: llm.classify("word", ["x", "y"], **options),
    "classify proba": lambda llm, options: llm.classify("word", ["x", "y"], proba=True, **options),
    "classify multi": lambda llm, options: llm.classify("word", ["x", "y"], multi=True, **_longer(options)),
    "extract": lambda llm, options: llm.extract("word", "size int, ok bool", **_longer(options)),
    "filter": lambda llm, options: llm.filter("{word} is nice", **options),
    "score": lambda llm, options: llm.score("How nice is {word}?", low=0, high=3, **options),
    "judge": lambda llm, options: llm.judge(answer="word", question="other", **options),
    "prefer": lambda llm, options: llm.prefer("word", "other", **options),
    "summarize": lambda llm, options: llm.summarize("word", max_words=3, **options),
    "translate": lambda llm, options: llm.translate("word", "French", **options),
    "embed": lambda llm, options: llm.embed("word", model=options["model"], cache=False),
    "skip": lambda llm, options: llm.extract("word", "size int", on_error="skip", **options),
}
_OF_SERIES: dict[str, Verb] = {
    **_OF_BOTH,
    "classify": lambda llm, options: llm.classify(["x", "y"], **options),
    "classify proba": lambda llm, options: llm.classify(["x", "y"], proba=True, **options),
    "extract": lambda llm, options: llm.extract("size int", **_longer(options)),
    "filter": lambda llm, options: llm.filter("is nice", **options),
    "score": lambda llm, options: llm.score("How nice is it?", **options),
    "judge": lambda llm, options: llm.judge("nice", **options),
    "summarize": lambda llm, options: llm.summarize(**options),
    "translate": lambda llm, options: llm.translate("French", **options),
    "embed": lambda llm, options: llm.embed(model=options["model"], cache=False),
}


def _split(table: Any = _FRAME, npartitions: int = 3) -> Any:
    return dd.from_pandas(table, npartitions=npartitions)


def _assert_same(lazy: Any, expected: Any) -> None:
    """Equal, and what was promised before it was computed."""
    computed = lazy.compute()
    if isinstance(expected, pd.Series):
        assert_series_equal(_timeless(computed), _timeless(expected))
        assert (lazy.dtype, lazy.name) == (expected.dtype, expected.name)
    else:
        assert_frame_equal(_timeless(computed), _timeless(expected))
        assert lazy.dtypes.to_dict() == expected.dtypes.to_dict()


def _timeless(table: Any) -> Any:
    return table.drop(columns=[name for name in getattr(table, "columns", ()) if str(name).endswith("_duration_ms")])


@pytest.mark.parametrize("name", _OF_FRAMES)
def test_verbs_of_frames_are_the_same_as_in_pandas(name: str, toy: Model) -> None:
    verb = _OF_FRAMES[name]
    _assert_same(verb(_split().llm, {"model": "toy", **_QUIET}), verb(_FRAME.llm, {"model": toy, **_QUIET}))


@pytest.mark.parametrize("name", _OF_SERIES)
def test_verbs_of_series_are_the_same_as_in_pandas(name: str, toy: Model) -> None:
    verb, word = _OF_SERIES[name], _FRAME["word"]
    _assert_same(verb(_split().word.llm, {"model": "toy", **_QUIET}), verb(word.llm, {"model": toy, **_QUIET}))


def test_every_verb_of_pandas_is_there() -> None:
    about_wholes = set(HOMES) - {"score", "judge"}
    verbs = {name for name in vars(FrameAccessor) if not name.startswith("_")} - about_wholes
    assert {name for name in vars(DaskFrameAccessor) if not name.startswith("_")} == verbs


def test_divisions_stay(toy: Model) -> None:
    assert _split().llm.map("{word}", model="toy", **_QUIET).divisions == _split().divisions


def test_the_same_call_is_the_same_work_to_dask() -> None:
    names = [
        _split().llm.map(text, model=model, seed=seed, cache=cache)._name
        for text, model, seed, cache in [
            ("{word}", "a", 1, False),
            ("{word}", "a", 1, False),
            ("{word}!", "a", 1, False),
            ("{word}", "b", 1, False),
            ("{word}", "a", 2, False),
            ("{word}", "a", 1, AnswerCache()),
        ]
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 5


def test_nothing_is_asked_before_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sent: Sent) -> Model:
        raise AssertionError("a model was wanted")

    monkeypatch.setattr(partitions, "received", refuse)
    lazy = _split().llm.map("{word}", model="no such model", cache=False)
    assert list(lazy.columns) == ["word", "other", "response"]
    with pytest.raises(AssertionError, match="a model was wanted"):
        lazy.compute()


def test_a_partition_without_rows_wants_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "received", None)
    empty = _split()[_split().other == "none"].llm.map("{word}", cache=False).compute()
    assert (len(empty), empty["response"].dtype) == (0, "str")


def test_verbs_follow_one_another(toy: Model) -> None:
    options: dict[str, Any] = _QUIET
    lazy = _split().llm.map("{word}", model="toy", **options).llm.filter("{response} is nice", model="toy", **options)
    whole = _FRAME.llm.map("{word}", model=toy, **options).llm.filter("{response} is nice", model=toy, **options)
    _assert_same(lazy, whole)


def test_computing_again_asks_for_nothing(toy: Model, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.gguf"
    path.write_bytes(b"not really")
    asked: list[Request] = []
    engine = _Failing(path, asked)
    monkeypatch.setattr(partitions, "received", lambda sent: Model(engine))
    lazy = _split().llm.map("say {other}", model="toy", cache=AnswerCache(tmp_path / "answers"))
    first = lazy.compute()
    assert len(asked) == len(_FRAME)
    assert_frame_equal(lazy.compute(), first)
    assert len(asked) == len(_FRAME)


def test_threads_of_a_process_ask_one_engine_together(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each partition waits until the other's request is there too."""
    import threading

    together = threading.Barrier(2, timeout=20)

    class Meeting(_Failing):
        def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
            together.wait()
            return super().submit(request, on_chunk)

    model = Model(Meeting(tmp_path, []))
    monkeypatch.setattr(partitions, "received", lambda sent: model)
    lazy = _split(_FRAME.iloc[[0, 2]], 2).llm.map("say {word}", model="toy", cache=False)
    with dask.config.set(scheduler="threads", num_workers=2):
        assert lazy.compute()["response"].tolist() == ["say good!", "say bad!"]


# ---- failures


class _Failing(ScriptedEngine):
    """Says the prompt, and fails where it has "bad" in it and is told to."""

    def __init__(self, path: Any, asked: list[Request], fails: bool = False) -> None:
        from dataclasses import replace

        from nbllm.testing.vocabulary import TOY_MODEL

        super().__init__(replace(TOY_MODEL, path=str(path)))
        self._asked, self._fails = asked, fails

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        self._asked.append(request)
        text = prompt(request)
        self.enqueue(EngineError(f"{text} broke") if self._fails and "bad" in text else f"{text}!")
        return super().submit(request, on_chunk)


@pytest.fixture
def failing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(_Failing(tmp_path, [], fails=True))
    monkeypatch.setattr(partitions, "received", lambda sent: model)


@pytest.mark.usefixtures("failing")
def test_failed_rows_are_missing_and_told_of_in_details() -> None:
    plain = _split().llm.map("say {word}", model="toy", cache=False)
    computed = plain.compute()
    assert list(computed.columns) == list(plain.columns) == ["word", "other", "response"]
    assert computed["response"].isna().tolist() == [False, True, True, False, True, False, True, False]
    errors = _split().llm.map("say {word}", model="toy", cache=False, details=True).compute()["response_error"]
    assert errors.dropna().tolist() == ["say bad broke", "say bad broke"]


@pytest.mark.usefixtures("failing")
def test_failed_values_of_a_series_are_kept_by_filter() -> None:
    kept = _split().word.llm.filter("is nice", model="toy", cache=False).compute()
    assert isinstance(kept, pd.Series)
    assert (kept.name, kept.tolist()) == ("word", ["bad", "bad"])


@pytest.mark.usefixtures("failing")
def test_an_error_that_is_to_be_raised_is_the_rows() -> None:
    with pytest.raises(EngineError, match=r"^row \d( \(index \d+\))?: say bad broke$"):
        _split().llm.map("say {word}", model="toy", cache=False, on_error="raise").compute()


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": True}, r"^background: .*\.persist\(\)"),
        ({"progress": True}, r"^progress: .*ProgressBar"),
        ({"progress": print}, r"^progress: .*ProgressBar"),
        ({"limit": 3}, r"^limit: .*head\(20\)"),
        ({"limit": 0}, r"^limit: .*head\(20\)"),
        ({"on_interrupt": "return"}, r"^on_interrupt: .*compute it again"),
        ({"model": Model(ScriptedEngine())}, r"^model: .*give its name or path, model='toy'"),
        ({"model": 3}, r"^model: must be a name"),
        ({"examples": dd.from_pandas(_FRAME, npartitions=1)}, r"^examples: .*\.compute\(\)"),
        ({"temprature": 1}, r"did you mean .?temperature"),
        ({"on_error": "ignore"}, r"^on_error: must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_kept_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as refusal:
        _split().llm.map("{word}", **options)
    assert "\n" not in str(refusal.value)


def test_options_that_say_what_happens_anyway_are_taken(toy: Model) -> None:
    options: dict[str, Any] = {"background": False, "progress": False, "limit": None, "on_interrupt": "raise"}
    assert len(_split().llm.map("{word}", model="toy", **options, **_QUIET).compute()) == len(_FRAME)


def test_wrong_arguments_are_refused_at_once() -> None:
    with pytest.raises(TemplateError, match=r"did you mean \{word\}"):
        _split().llm.map("{wrod}")
    with pytest.raises(InvalidRequestError, match="there is a column 'other' already"):
        _split().llm.map("{word}", into="other")


def test_what_is_about_a_whole_table_says_to_compute_it() -> None:
    with pytest.raises(AttributeError, match=r"^llm\.grid .*ddf\.compute\(\)\.llm\.grid"):
        _split().llm.grid()
    assert not hasattr(_split().llm, "no_such_verb")


def test_repr_says_how_many_partitions() -> None:
    assert repr(_split().llm) == "<nbllm accessor of a Dask DataFrame in 3 partitions: map, classify, ...>"
    assert "Series in 3" in repr(_split().word.llm)
