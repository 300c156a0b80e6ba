from __future__ import annotations

import pytest

from nbllm.chat.trial import check_template
from nbllm.errors import ParameterError


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{% for m in messages %}{{ m.content }}{% endfor %}", id="plain"),
        pytest.param("{{ messages[-1]['content'] | trim | upper }}", id="filtered"),
        pytest.param(
            "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[-1].content }}",
            id="system first",
        ),
        pytest.param("{{ raise_exception('ask me about the weather') }}", id="refuses"),
        pytest.param("{{ messages[1].content.x.y if messages[1] is not defined else messages[3].content }}", id="long"),
        pytest.param("", id="none: the plain form"),
        pytest.param("{% generation %}{{ messages[0].content }}{% endgeneration %}", id="Hugging Face's tag"),
    ],
)
def test_template_that_may_answer_passes(source: str) -> None:
    check_template(source)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("{% for m in messages %}{{ m.content }}", "is no Jinja that can be run", id="no end"),
        pytest.param("a\nb\n{{ messages[0] ", "at line 3", id="line"),
        pytest.param("{% import 'os' as os %}{{ messages[0].content }}", "import", id="import"),
        pytest.param("x" * 300_000, "characters long", id="huge"),
        pytest.param("{% " + "(" * 5_000, "is no Jinja", id="deep"),
        pytest.param("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out", id="roles only"),
        pytest.param("{{ messages[0].content | nosuch }}", "fails every chat: it failed at line 1", id="filter"),
        pytest.param("{% for a in range(10**9) %}{{ a }}{% endfor %}", "fails every chat", id="long run"),
        pytest.param("{{ messages[1].content.x.y }}", "fails every chat", id="attribute"),
    ],
)
def test_template_that_never_could_is_refused_in_a_line(source: str, says: str) -> None:
    with pytest.raises(ParameterError, match=r"^template: ") as caught:
        check_template(source)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
