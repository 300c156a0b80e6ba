from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from jinja2 import Environment
from jinja2 import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nbllm.chat.budget import Budget, ExhaustedError, ProgramError, RefusalError
from nbllm.chat.globals import GLOBALS
from nbllm.chat.program import Program
from tests.chat.fixtures import ALL


def run(source: str, **names: Any) -> str:
    return Program(source).run(Budget(3_000_000, 64 * 2**20), {**GLOBALS, **names})


def reference() -> Environment:
    """Jinja2 as Hugging Face sets it up; it decides what a template means."""

    def refuse(message: str) -> None:
        raise JinjaError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026"
    return environment


CHATS = {
    "one": [{"role": "user", "content": " Hello <b>é</b>\n"}],
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb", "reasoning_content": "why\n"},
        {"role": "user", "content": "c"},
    ],
    "not alternating": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "ends with an answer": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "\nb ", "reasoning_content": "because"},
    ],
}


@pytest.mark.parametrize("generate", [True, False], ids=["generate", "whole"])
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS.keys())
@pytest.mark.parametrize("source", ALL.values(), ids=ALL.keys())
def test_output_is_jinjas(source: str, chat: list[dict[str, str]], generate: bool) -> None:
    names = {
        "messages": chat,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_generation_prompt": generate,
        "date_string": "2026",
        "tools": [{"name": "f", "parameters": {"b": [1, {"x": None}], "a": "é<"}}],
    }
    plain = source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    try:
        expected = reference().from_string(plain).render(**names)
    except JinjaError:
        with pytest.raises(RefusalError):
            run(source, **names)
    else:
        assert run(source, **names) == expected


EXPRESSIONS = [
    "1 + 2 * 3 - 7 // 2 ** 1 / 4 % 3",
    "-x + +x",
    "'a' ~ 1 ~ none ~ true ~ missing ~ 1.5 ~ [1, 'b', none]",
    "'ab' * 3",
    "[1, 2] + [3]",
    "(1, 2)",
    "{'a': 1, 'b': [2]}",
    "d.a, d['b'], d.missing, d['missing']",
    "d.get('a'), d.get('z'), d.get('z', 'default')",
    "d.items() | list, d.keys() | list, d.values() | list",
    "text[1:3], text[-1], text[::-1], words[1:], words[:-1], words[99]",
    "text.strip(), text.lstrip(' a'), text.rstrip(), text.upper(), text.title()",
    "text.split('b'), text.split(), text.rsplit('b', 1), 'a\nb'.splitlines()",
    "text.replace('b', 'XX', 1), text.find('b'), text.rfind('z'), text.count('b')",
    "text.startswith('  a'), text.endswith(('x', ' ')), 'ab'.removeprefix('a')",
    "', '.join(words), '{} {}'.format('a', 1), '{0}-{x}'.format('a', x=2), '{{}}'.format()",
    "'%s is %d %%' % ('a', 3)",
    "x is defined, missing is defined, missing is undefined, none is none, missing is none",
    "text is string, d is mapping, words is iterable, words is sequence, 3 is number, true is boolean",
    "3 is odd, 4 is even, 9 is divisibleby 3, 'a' is in words, 'a' is not in words",
    "1 == 1.0, 'a' != 'b', 1 < 2 <= 2, 'a' < 'b', 2 in [1, 2], 'x' not in d, 'b' in text",
    "words | join('-'), words | first, words | last, words | length, words | reverse | list",
    "words | map('upper') | list, dicts | map(attribute='n') | list, dicts | sum(attribute='n')",
    "dicts | selectattr('n', '>', 1) | list, dicts | rejectattr('k') | list, [0, 1] | select | list",
    "words | sort, ['b', 'A'] | sort, dicts | sort(attribute='n', reverse=true), [1, 1, 2] | unique | list",
    "d | tojson, d | tojson(indent=2), 'é</b>' | tojson, d | dictsort, d | items | list",
    "missing | default('x'), '' | default('x', true), none | d('y')",
    "' a ' | trim, 'a\nb' | indent(2), 'a' | capitalize, 'ab' | upper, '3' | int + 1, '1.5' | float, 2.567 | round(1)",
    "'<a \"b\">' | escape",
    "'<x>' | safe",
    "[1, 2] | string, [3, 1] | max, [3, 1] | min, -3 | abs",
    "x if x > 1 else 'small'",
    "'yes' if missing",
    "x and text or words, not x",
    "range(3) | list, range(1, 6, 2) | list, dict(a=1)",
    "namespace(a=1).a",
    "'a' 'b'",
    "missing == missing, missing | length, missing | list",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_is_jinjas(expression: str) -> None:
    names = {
        "x": 3,
        "text": "  abcabc ",
        "words": ["a", "b", "c"],
        "d": {"a": 1, "b": [2]},
        "dicts": [{"n": 1, "k": ""}, {"n": 2, "k": "z"}],
    }
    source = "{{ " + expression + " }}"
    assert run(source, **names) == reference().from_string(source).render(**names)


STATEMENTS = [
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{{ loop.index }}{{ loop.revindex0 }}{{ loop.last }}{% endfor %}",
    "{% for i in [] %}x{% else %}empty{% endfor %}",
    "{% for i in range(9) if i is odd %}{{ i }}/{{ loop.length }} {% endfor %}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in 'ab' %}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}",
    "{% for i in 'ab' %}{{ loop.cycle('x', 'y') }}{{ loop.changed(1) }}{% endfor %}",
    "{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.depth }}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% macro m(a, c, b='z') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=3, b=2) }}",
    "{% set y = 2 %}{% macro m() %}{{ y }}{% endmacro %}{% set y = 3 %}{{ m() }}",
    "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}",
    "{% set t %}a{{ 1 }} {% endset %}[{{ t }}]{% set t | upper %}b{% endset %}{{ t }}",
    "{% filter upper | replace('A', 'x') %}abc{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}",
    "{% if 0 %}a{% elif '' %}b{% else %}c{% endif %}",
    "{% set a, b = [1, 2] %}{{ b }}{{ a }}",
    "{# note #}  {%- raw %}{{ x }}{% endraw -%}  !",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "{% for x in [1] -%}   y   {%- endfor %}\n\n",
    "{{ '\\n' }}{{ 'a\\\\b' }}",
]


@pytest.mark.parametrize("source", STATEMENTS)
def test_statement_is_jinjas(source: str) -> None:
    assert run(source) == reference().from_string(source).render()


def test_generation_tags_write_their_body_with_jinjas_white_space() -> None:
    source = "a\n{%- generation %}\n b {% endgeneration -%}\n c"
    assert run(source) == reference().from_string("a\n{%- if 1 %}\n b {% endif -%}\n c").render()


def test_refusal_is_the_templates_own_message_and_line() -> None:
    with pytest.raises(RefusalError, match=r"^no thanks$") as caught:
        run("a\n{% if true %}\n{{ raise_exception('no thanks') }}\n{% endif %}")
    assert caught.value.line == 3


def test_strftime_now_is_todays_date() -> None:
    from datetime import date

    assert run("{{ strftime_now('%Y-%m') }}") == date.today().strftime("%Y-%m")


BROKEN = {
    "syntax": ("{% if %}", "Expected an expression"),
    "unclosed": ("{% for x in y %}", "Unexpected end of template"),
    "unknown filter": ("{{ 1 | attr('x') }}", "'attr'"),
    "unknown test": ("{{ 1 is filter }}", "'filter'"),
    "include": ("{% include '/etc/passwd' %}", "include"),
    "import": ("{% import '/etc/passwd' as x %}", "import"),
    "extends": ("{% extends 'x' %}", "extends"),
    "class of a text": ("{{ ''.__class__.__mro__ }}", "__class__"),
    "class of a list": ("{{ messages.__class__ }}", "__class__"),
    "class by item": ("{{ ''['__class__'] }}", "__class__"),
    "class by map": ("{{ ['a'] | map(attribute='__class__') | list }}", "__class__"),
    "class by format": ("{{ '{0.__class__}'.format(1) }}", "plain"),
    "globals of a function": ("{{ raise_exception.__globals__ }}", "__globals__"),
    "attribute of undefined": ("{{ missing.name }}", "'missing' is undefined"),
    "call of undefined": ("{{ missing() }}", "cannot be called"),
    "call of a text": ("{{ 'x'() }}", "cannot be called"),
    "changes a list": ("{{ messages.append(1) }}", "cannot be called"),
    "prints a function": ("{{ range }}", "not text"),
    "division by zero": ("{{ 1 / 0 }}", "division by zero"),
    "wrong types": ("{{ 1 + 'a' }}", "does not work between"),
    "wrong arguments": ("{{ ''.strip(1, 2, 3) }}", "strip"),
    "not iterable": ("{% for x in 5 %}{% endfor %}", "cannot be looped over"),
    "set on a text": ("{% set x = '' %}{% set x.y = 1 %}", "not a namespace"),
    "recursive loop": ("{% for x in [1] recursive %}{% endfor %}", "recursive loop"),
    "star arguments": ("{{ range(*[1]) }}", r"\*"),
    "nested source": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
    "long source": ("a" * 300_000, "at most 262,144"),
    "huge number in the source": ("{{ 0x" + "f" * 5000 + " }}", "too large"),
    "time format with a width": ("{{ strftime_now('%999999999Y') }}", "plain % letters"),
}


@pytest.mark.parametrize(("source", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_template_says_what_is_wrong(source: str, problem: str) -> None:
    with pytest.raises(ProgramError, match=problem):
        run(source, messages=[])


def doubling(start: str, step: str, end: str = "ns.x|length") -> str:
    loop = f"{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% set ns.y = [ns.y, ns.y] %}}{{% endfor %}}"
    return f"{{% set ns = namespace(x={start}, y=[1]) %}}{loop}{{{{ {end} }}}}"


HOSTILE = {
    "text times a number": "{{ 'a' * 3000000000 }}",
    "number times a text": "{{ 3000000000 * 'a' }}",
    "list times a number": "{{ ([1] * 3000000000) | length }}",
    "power": "{{ 10 ** (10 ** 7) }}",
    "power of a power": "{{ 2 ** 9 ** 9 ** 9 }}",
    "squaring": doubling("3", "ns.x * ns.x"),
    "float power": "{{ 10.0 ** 400 }}",
    "doubling by ~": doubling("'ab'", "ns.x ~ ns.x"),
    "doubling by +": doubling("'ab'", "ns.x + ns.x"),
    "doubling by join": doubling("'ab'", "[ns.x, ns.x] | join"),
    "doubling by format": doubling("'ab'", "'{0}{0}'.format(ns.x)"),
    "doubling by %": doubling("'ab'", "'%s%s' % (ns.x, ns.x)"),
    "doubling by replace": doubling("'ab'", "ns.x.replace('', ns.x)"),
    "doubling by replace filter": doubling("'ab'", "ns.x | replace('a', 'aa')"),
    "doubling by tojson": doubling("'\"'", "ns.x | tojson"),
    "doubling by escape": doubling("'<'", "(ns.x ~ ns.x) | e"),
    "doubling by indent": doubling("'a\n'", "(ns.x ~ ns.x) | indent(32, true, true)"),
    "doubling lists": doubling("[1]", "ns.x + ns.x"),
    "doubling by a block": "{% set a = 'ab' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60,
    "doubling by a macro": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% else %}ab{% endif %}{% endmacro %}{{ m(39) }}"
    ),
    "shared lists printed": doubling("[1]", "[ns.x, ns.x]", "ns.x"),
    "shared lists to JSON": doubling("[1]", "[ns.x, ns.x]", "ns.x | tojson"),
    "shared lists compared": doubling("[1]", "[ns.x, ns.x]", "ns.x == ns.x + [] "),
    "two shared lists compared": doubling("[1]", "[ns.x, ns.x]", "ns.x == ns.y"),
    "shared tuple as a key": doubling("(1,)", "(ns.x, ns.x)", "{ns.x: 1}"),
    "range": "{{ range(10 ** 9) | list }}",
    "range beyond 64 bits": "{{ range(10 ** 30) | list }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "raw text in a loop": "{% for a in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "filter in a loop": "{% for a in range(9999) %}{{ range(9999) | map('string') | join }}{% endfor %}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "mutual macros": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "fibonacci": "{% macro f(n) %}{{ n if n < 2 else f(n - 1) ~ f(n - 2) }}{% endmacro %}{{ f(38) }}",
    "indent": "{{ [[[[1]]]] | tojson(indent=999999999) }}",
    "indent filter": "{{ 'a\nb' | indent(999999999) }}",
    "format width": "{{ '%999999999d' % 1 }}",
    "format method width": "{{ '{:>999999999}'.format(1) }}",
    "split into characters": "{% set x = 'a ' * 9999999 %}{{ x.split() | length }}",
    "characters": "{% set x = 'a' * 9999999 %}{{ x | list | length }}",
    "searches": "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% set y = 'b' in x %}{% endfor %}",
    "backward searches": "{% set x = 'a' * 900000 %}{{ x.rfind('b' ~ 'a' * 400000) }}",
    "comparisons": (
        "{% set x = 'a' * 999999 %}{% set y = x ~ '' %}{% for i in range(9999) %}{% set z = x == y %}{% endfor %}"
    ),
    "slices": "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% set z = x[1:] %}{% endfor %}",
}
_QUIET = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (700 << 20,) * 2)\n"


@pytest.fixture(scope="module")
def hostile_results() -> dict[str, str]:
    """All of them in one process that may not hold more than 700 MB, so that a failure cannot hurt the machine."""
    script = (
        _QUIET
        + "import json\n"
        + "from nbllm.chat.templates import ChatTemplate\nfrom nbllm.core import Message\n"
        + "from nbllm.errors import TemplateError\n"
        + "results = {}\n"
        + "for name, source in json.load(sys.stdin).items():\n"
        + "    template = ChatTemplate(source, bos='', eos='', control_texts=())\n"
        + "    try:\n        results[name] = 'wrote ' + template.render([Message('user', 'hi')]).text[:100]\n"
        + "    except TemplateError as error:\n        results[name] = 'refused ' + str(error)\n"
        # ru_maxrss would be pytest's own where that is larger: it is inherited from before the exec
        + "status = open('/proc/self/status').read()\n"
        + "peak = int(status.partition('VmHWM:')[2].split()[0]) >> 10\n"
        + "print(json.dumps({'results': results, 'peak': peak}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return {**answer["results"], "peak": str(answer["peak"])}


@pytest.mark.parametrize("name", HOSTILE.keys())
def test_hostile_template_is_one_line_of_error(hostile_results: dict[str, str], name: str) -> None:
    assert hostile_results[name].startswith("refused the model's chat template failed")
    assert "\n" not in hostile_results[name]


def test_hostile_templates_hold_bounded_memory(hostile_results: dict[str, str]) -> None:
    assert int(hostile_results["peak"]) < 350


def test_purse_is_shared_by_the_whole_run() -> None:
    program = Program("{% for i in range(100) %}{{ i }}{% endfor %}")
    with pytest.raises(ExhaustedError, match="runs too long"):
        program.run(Budget(50, 10_000), GLOBALS)
    with pytest.raises(ExhaustedError, match="too much text"):
        program.run(Budget(5_000, 1_000), GLOBALS)
    assert program.run(Budget(5_000, 100_000), GLOBALS).startswith("0123")


class _AlarmError(Exception):
    """What the handler of a signal may raise, at any moment."""


def _run_for_ever(program: Program) -> None:
    while True:
        program.run(Budget(3_000_000, 64 * 2**20), {**GLOBALS})


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal here")
def test_exception_of_a_signal_handler_is_not_the_templates_fault() -> None:
    def ring(*_: object) -> None:
        raise _AlarmError

    program = Program("{% for a in range(90000) %}x{% endfor %}")
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(_AlarmError):
            _run_for_ever(program)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
