from __future__ import annotations

import pytest

from nbllm.store.presets.templates import split


@pytest.mark.parametrize(
    "text",
    [
        "{{ .Prompt }}",
        "{{- if .System }}{{ .System }}{{ end }}",
        "{{ range .Messages }}a{{ end }}",
        "{{ range $i, $m := .Messages }}",
        "a {{- else -}} b",
        "{{ else if eq .Role }}",
        "{{end}}",
        "{{/* comment */}}",
        "{{ $last := 1 }}",
        "{{ json .Tools }}",
        "{{ if (and .A .B) }}",
        '{{ template "a" . }}',
    ],
)
def test_split_recognises_ollamas(text: str) -> None:
    assert split(text) == (None, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "{{ messages[0].content }}",
        "{{ messages[0]['content'] }}{{ '.Prompt' }}",
        "{{ end_of_turn }}{{ end }}{% if a %}{% endif %}",
        "{% for message in messages %}{{ message.content }}{% endfor %}",
        "{% raw %}{{ .Prompt }}{% endraw %}",
        "{# {{ .Prompt #}{%- set a = 1 %}",
        "{{ index_of }}{{ not a }}{{ iffy }}{{ printed }}",
    ],
)
def test_split_leaves_jinja(text: str) -> None:
    assert split(text) == (text, None)
