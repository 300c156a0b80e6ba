"""Presets as hypothesis makes them up: any that a file may hold."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nbllm.core import Adapter, Message, Preset, SamplingParams
from nbllm.store.presets.params import WITHOUT_EFFECT
from nbllm.store.presets.templates import split

_QUOTES = st.sampled_from(
    ['"', '"""', "'''", "\n", " ", "\r", "\t", "\\", "\x7f", "\0", "<<END", "END", "#", "a", "{{ .System }}", "{%"]
)
texts = st.text(max_size=30) | st.lists(_QUOTES, max_size=12).map("".join)
_parts = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/."), min_size=1, max_size=9)
absolute_paths = st.builds("/{} {}/{}.gguf".format, _parts, _parts, _parts) | _parts.map("/{}".format)
digests = st.integers(0, 2**256 - 1).map("sha256:{:064x}".format)
_names = st.sampled_from(["smollm2", "hf:org/repo:Q4_K_M", "a/b.c:latest", "sha256"])
_messages = st.builds(Message, st.sampled_from(["system", "developer", "user", "assistant"]), texts)
_adapters = st.builds(Adapter, absolute_paths | digests, st.floats(-100, 100))
_sampling = st.builds(
    SamplingParams,
    temperature=st.none() | st.floats(0, 100),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(0, 2**31 - 1),
    repeat_penalty=st.none() | st.floats(0.01, 100),
    repeat_last_n=st.none() | st.integers(0, 2**20),
    presence_penalty=st.none() | st.floats(-2, 2),
    max_tokens=st.none() | st.integers(0, 2**31 - 1),
    seed=st.none() | st.integers(0, 2**32 - 2),
    stop=st.lists(texts.filter(bool), max_size=3).map(tuple),
)


few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A preset has many parts, and a busy machine takes its time to make them up."""


@st.composite
def presets(draw: st.DrawFn) -> Preset:
    template, go_template = draw(st.just((None, None)) | texts.map(split))
    return Preset(
        name="made",
        base=draw(_names | absolute_paths | digests),
        system=draw(st.none() | texts),
        messages=draw(st.lists(_messages, max_size=3).map(tuple)),
        sampling=draw(_sampling),
        template=template,
        go_template=go_template,
        adapters=draw(st.lists(_adapters, max_size=3).map(tuple)),
        context_length=draw(st.none() | st.integers(1, 2**20)),
        threads=draw(st.none() | st.integers(1, 1024)),
        licenses=draw(st.lists(texts, max_size=2).map(tuple)),
        ignored=draw(st.dictionaries(st.sampled_from(sorted(WITHOUT_EFFECT)), texts, max_size=3)),
    )
