"""`df.llm` and `s.llm`: the verbs of `nbllm.frames.verbs`, and what is computed and shown of a comparison."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nbllm.frames.compare.methods import ResultMethods
from nbllm.frames.interrupts import calm_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    import pandas as pd

    from nbllm.frames.verbs.source import Source

_VERBS = "nbllm.frames.verbs"
_HOMES = {
    "map_rows": f"{_VERBS}.mapping",
    "classify": f"{_VERBS}.classifying",
    "extract": f"{_VERBS}.extracting",
    "filter_rows": f"{_VERBS}.filtering",
    "score": f"{_VERBS}.scoring",
    "judge": f"{_VERBS}.judging",
    "prefer": f"{_VERBS}.judging",
    "summarize": f"{_VERBS}.rewriting",
    "translate": f"{_VERBS}.rewriting",
    "embed": f"{_VERBS}.embedding",
    "search": f"{_VERBS}.embedding",
    "prompts": f"{_VERBS}.prompts",
}


class FrameAccessor(ResultMethods):
    """`df.llm`: asks a model about each row, all rows together.

    Every verb gives a copy of the frame with new columns, the index and the order as they were. A row with a missing
    value among those it uses is not asked, and its new values are missing. Equal rows are asked once; every finished
    answer is in the cache at once, so that an interrupted call goes on where it was when it is made again.

    Besides their own arguments, verbs take what follows, and the rest of `nbllm.SamplingParams`: top_k, top_p, min_p,
    typical_p, repeat_penalty, repeat_last_n, presence_penalty, frequency_penalty, logit_bias.

    At temperature 0 a row's text may still differ between two runs that compute it, for the rows that are evaluated
    beside it change the rounding; the cache gives the same text again, and reproducible=True computes the same.

    Args:
        temperature: how freely tokens are drawn; 0 (default here) takes the likeliest, None is the model's own.
        max_tokens: of an answer; None is as long as the context has room for, and so it is without it, but for an
            answer with a form, which has 512 tokens, or 64 a field if that is more.
        stop: texts that end an answer.
        response_format, choice, regex, grammar: the shape of an answer, for `map`; the other verbs have their own.
        reproducible: the same text for the same row whatever else runs, on this machine and build, at some cost in
            speed.
        timeout: seconds for each row, waiting included.
        template_options: variables for the chat template, such as {"enable_thinking": False}.
        lora: LoRA adapters to compute with: the path of one, {"path": ..., "scale": 0.5}, or a list of them.
        model: a name, a path or an `nbllm.Model`; the one that was loaded last, or the default, if not given.
        into: the name of the new column; one that is there already is never overwritten unless `overwrite` is True.
        overwrite: replace a column of that name, and those that tell of its answers.
        system: a system message, sent as it is: columns are filled in in the prompt only.
        examples: a DataFrame of rows with their answers, in the columns that are used and the new ones.
        details: also add {into}_error, _finish_reason, _input_tokens, _output_tokens, _duration_ms and _cached.
        on_error: "keep" (default) leaves a failed row's values missing, and adds {into}_error if there is one; "skip"
            drops such rows; "raise" ends with the first one's error.
        limit: ask about the first so many rows only; the others' values are missing.
        seed: from which each row's seed is made, together with what the row says (default 0).
        cache: False neither reads nor writes it.
        progress: True shows a bar, False none; a function is called with the numbers of finished and of all rows.
        max_concurrency: rows that are with the model at a time.
        on_interrupt: "return" gives what is there when it is interrupted.
        background: return a Job at once, with .progress, .cancel() and .result(); `await job` works too.

    What `nbllm.compare` gives has more: grid, summary, pairwise, differences, agreement, confusion, plot, to_csv,
    to_html and to_jsonl; `score` and `judge` then are about its answers.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __repr__(self) -> str:
        return f"<nbllm accessor of a frame with {len(self._frame):,} rows: map, classify, extract, ...>"

    # ---- rows

    def map(self, prompt: str, *, into: str = "response", **options: Any) -> Any:
        """Ask a prompt of each row: `df.llm.map("What is sold here? {description}")`.

        Args:
            prompt: with {column} where a column's value goes; `{{` and `}}` are braces.
            response_format: the shape of the answer; a list of choices, "name, age int", a pydantic model, a JSON
                Schema. Answers with fields are dicts; for a column a field use `extract`.
        """
        return self._ask("map_rows", prompt, into=into, **options)

    def classify(
        self,
        col: Hashable,
        labels: Sequence[str] | Mapping[str, str],
        *,
        multi: bool = False,
        proba: bool = False,
        into: str = "label",
        **options: Any,
    ) -> Any:
        """Give each text one of the labels.

        Args:
            labels: a list, or a dict of labels and what they mean.
            multi: all that fit, as a list.
            proba: add a column p_<label> for each, or <into>_p_<label> when `into` is given: its probability as the
                model has it, among the labels.
        """
        return self._ask("classify", col, labels, multi=multi, proba=proba, into=into, **options)

    def extract(self, col: Hashable, schema: Any, *, prefix: str = "", **options: Any) -> Any:
        """Take typed columns out of each text: `df.llm.extract("review", "product, stars int, tags list[str]")`.

        Args:
            schema: fields in words, a pydantic model, or a JSON Schema of an object. Words for types are str, int,
                float, bool, date, datetime and list[...]; `age int?` may be null.
            prefix: what the names of the new columns begin with, here in the place of `into`.
        """
        return self._ask("extract", col, schema, prefix=prefix, **options)

    def filter(self, condition: str, *, into: str = "filter", **options: Any) -> Any:
        """Keep the rows of which a statement is true: `df.llm.filter("{review} is about delivery")`.

        Rows that failed stay too, with their error in {into}_error, unless `on_error` says otherwise.
        """
        return self._ask("filter_rows", condition, into=into, **options)

    def score(self, rubric: Any, *args: Any, **options: Any) -> Any:
        """Rate each row by a rubric: `df.llm.score("How polite is {reply}?", low=1, high=5)`, a column of Int64.

        On what `nbllm.compare` gave, anything but a text with {column} in it is a scorer: see
        `nbllm.frames.compare.scoring.score`.
        """
        is_rubric = isinstance(rubric, str) and "{" in rubric
        if not is_rubric and self._has_results():
            return self._of_results("score", rubric, *args, **options)
        return self._ask("score", rubric, *args, **options)

    def judge(self, rubric: Any = None, *, answer: Hashable | None = None, **options: Any) -> Any:
        """Rate the answers of a column: `df.llm.judge(answer="reply", reference="gold")`, a column of Int64.

        Without `answer` it is about what `nbllm.compare` gave: see `nbllm.frames.compare.judging.judge`.

        Args:
            rubric: what makes an answer good; it may name a {column}, which the judge is shown.
            question, reference: columns with what was asked, and with the right answer.
            low, high: the ends of the scale, 1 and 5 if not given.
        """
        if answer is None:
            if self._has_results():
                return self._of_results("judge", rubric, **options)
            from nbllm.errors import ParameterError

            raise ParameterError("answer", "name the column that has the answers, such as answer='reply'")
        if rubric is not None:
            options["rubric"] = rubric
        return self._ask("judge", answer, **options)

    def prefer(self, a: Hashable, b: Hashable, *args: Any, into: str = "preferred", **options: Any) -> Any:
        """Say which of two columns has the better answer: the column's name, or "tie".

        Args:
            criteria: what makes an answer the better one; it may name a {column}, which the judge is shown.
            question: a column with what was asked.
            swap: ask in both orders, and count what changes with the order as a tie (default True).
        """
        return self._ask("prefer", a, b, *args, into=into, **options)

    def summarize(self, col: Hashable, *, max_words: int | None = None, into: str = "summary", **options: Any) -> Any:
        """Summarize each text; in one or two sentences unless `max_words` says how long. The model may pass it."""
        return self._ask("summarize", col, max_words=max_words, into=into, **options)

    def translate(self, col: Hashable, to: str, *, into: str = "translation", **options: Any) -> Any:
        """Translate each text into a language, named as people name it: "French"."""
        return self._ask("translate", col, to, into=into, **options)

    def embed(self, col: Hashable, *, into: str = "embedding", **options: Any) -> Any:
        """Add each text's vector: a column of objects, each a float32 array of length 1. `numpy.stack` makes a matrix.

        It generates nothing, and so takes none of the options of `Model.chat` but `timeout`.
        """
        return self._ask("embed", col, into=into, **options)

    def search(self, col: Hashable, query: str, k: int = 5, *, into: str = "similarity", **options: Any) -> Any:
        """The k rows whose texts are nearest to the query, the nearest first, with the cosine of the angle between.

        Embeds as `embed` does, and has what is in the cache at once.
        """
        return self._ask("search", col, query, k, into=into, **options)

    def prompts(self, prompt: str, **options: Any) -> pd.DataFrame:
        """What `map` would ask with the same arguments, and how long it is; nothing is generated.

        A frame with the same index: `prompt`, as the chat template makes it, and `input_tokens`.
        """
        table: pd.DataFrame = self._ask("prompts", prompt, **options)
        return table

    # ---- inside

    def _ask(self, verb: str, /, *args: Any, **options: Any) -> Any:
        from nbllm.frames.verbs.source import Source

        return _verb(verb)(Source.of_frame(self._frame), *args, **options)

    def _of_results(self, name: str, /, *args: Any, **options: Any) -> Any:
        with calm_interrupts():
            return super()._of_results(name, *args, **options)

    def _has_results(self) -> bool:
        from nbllm.frames.compare.columns import REQUIRED

        return set(REQUIRED) <= set(self._frame.columns)


class SeriesAccessor:
    """`s.llm`: asks a model about each value, all values together. See `df.llm`, whose verbs and options these are.

    The values are the column: `{}` in a prompt, and no `col` among the arguments. What has one new column is a Series
    with the index as it was; `extract`, `classify(proba=True)`, `search`, `prompts` and whatever is asked for with
    details=True are frames.
    """

    def __init__(self, series: pd.Series) -> None:
        self._series = series

    def __repr__(self) -> str:
        return f"<nbllm accessor of a Series with {len(self._series):,} values: map, classify, extract, ...>"

    def map(self, prompt: str, *, into: str = "response", **options: Any) -> Any:
        """Ask a prompt about each value: `s.llm.map("What is sold here? {}")`."""
        return _verb("map_rows")(self._source(), prompt, into=into, **options)

    def classify(self, labels: Sequence[str] | Mapping[str, str], **options: Any) -> Any:
        """Give each text one of the labels; see `df.llm.classify`."""
        return self._of_value("classify", labels, **options)

    def extract(self, schema: Any, *, prefix: str = "", **options: Any) -> Any:
        """Take typed columns out of each text; see `df.llm.extract`."""
        return self._of_value("extract", schema, prefix=prefix, **options)

    def filter(self, condition: str, **options: Any) -> Any:
        """Keep the values of which a statement is true: `s.llm.filter("is about delivery")`."""
        return _verb("filter_rows")(self._source(), condition, **options)

    def score(self, rubric: str, *, low: int = 1, high: int = 5, **options: Any) -> Any:
        """Rate each value by a rubric: `s.llm.score("How polite is it?")`."""
        return _verb("score")(self._source(), rubric, low=low, high=high, **options)

    def judge(self, rubric: str | None = None, **options: Any) -> Any:
        """Rate each value as an answer; see `df.llm.judge`."""
        if rubric is not None:
            options["rubric"] = rubric
        return self._of_value("judge", **options)

    def summarize(self, *, max_words: int | None = None, **options: Any) -> Any:
        """Summarize each text; see `df.llm.summarize`."""
        return self._of_value("summarize", max_words=max_words, **options)

    def translate(self, to: str, **options: Any) -> Any:
        """Translate each text into a language, named as people name it: "French"."""
        return self._of_value("translate", to, **options)

    def embed(self, **options: Any) -> Any:
        """Each text's vector, a float32 array of length 1; see `df.llm.embed`."""
        return self._of_value("embed", **options)

    def search(self, query: str, k: int = 5, **options: Any) -> Any:
        """The k values nearest to the query, the nearest first, with their similarity; see `df.llm.search`."""
        return self._of_value("search", query, k, **options)

    def prompts(self, prompt: str, **options: Any) -> Any:
        """What `map` would ask, and how long it is; see `df.llm.prompts`."""
        return _verb("prompts")(self._source(), prompt, **options)

    def _of_value(self, verb: str, /, *args: Any, **options: Any) -> Any:
        source = self._source()
        return _verb(verb)(source, source.value, *args, **options)

    def _source(self) -> Source:
        from nbllm.frames.verbs.source import Source

        return Source.of_series(self._series)


def _verb(name: str) -> Callable[..., Any]:
    verb: Callable[..., Any] = getattr(import_module(_HOMES[name]), name)

    def called(source: Source, *args: Any, **options: Any) -> Any:
        with calm_interrupts():
            return verb(source, *args, **options)

    return called
