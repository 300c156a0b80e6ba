"""What a preset makes of a client's request."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.core import Adapter, EmbedRequest, GenerateRequest, Message, Preset, SamplingParams
from nbllm.errors import ParameterError, UnsupportedError
from nbllm.server.naming import Target
from nbllm.server.tailoring import tailored
from nbllm.wire.openai.lora import Switch

_FIRST, _SECOND = Adapter("/a.gguf", 0.5), Adapter("/b.gguf")
_PRESET = Preset(
    name="mario",
    base="toy",
    system="Be Mario.",
    messages=(Message("user", "Who?"), Message("assistant", "Me.")),
    sampling=SamplingParams(temperature=0.25, max_tokens=7),
    adapters=(_FIRST, _SECOND),
)
_MARIO = Target("mario", Path("/toy.gguf"), preset=_PRESET, base="toy")
_PLAIN = Target("toy", Path("/toy.gguf"), base="toy")
_FAR = Target("far", None, base="far")
_HI = Message("user", "Hi")


def _asked(**sampling: float) -> GenerateRequest:
    return GenerateRequest(messages=(_HI,), sampling=SamplingParams.from_options(sampling))


def test_preset_is_applied_to_a_chat() -> None:
    made = tailored(_MARIO, _asked(), None)
    assert made.messages == (Message("system", "Be Mario."), *_PRESET.messages, _HI)
    assert (made.sampling.temperature, made.sampling.max_tokens) == (0.25, 7)
    assert made.adapters == (_FIRST, _SECOND)


def test_model_that_is_no_preset_is_asked_as_it_was_said() -> None:
    assert tailored(_PLAIN, _asked(temperature=1), None, assumed=("temperature",)) == _asked(temperature=1)


def test_what_the_protocol_assumes_gives_way_and_what_the_client_says_does_not() -> None:
    asked = _asked(temperature=1, max_tokens=16)
    assert tailored(_MARIO, asked, None).sampling == asked.sampling
    made = tailored(_MARIO, asked, None, assumed=("temperature", "max_tokens")).sampling
    assert (made.temperature, made.max_tokens) == (0.25, 7)


def test_what_nobody_says_stays_what_the_protocol_assumes() -> None:
    target = Target("calm", Path("/toy.gguf"), preset=Preset(name="calm", base="toy"), base="toy")
    assert tailored(target, _asked(temperature=1), None, assumed=("temperature",)).sampling.temperature == 1


def test_what_goes_on_has_its_instructions_already() -> None:
    made = tailored(_MARIO, _asked(), None, goes_on=True)
    assert made.messages == (_HI,)
    assert made.sampling.temperature == 0.25


def test_vectors_have_the_adapters() -> None:
    assert tailored(_MARIO, EmbedRequest(texts=("a",)), None).adapters == (_FIRST, _SECOND)


@pytest.mark.parametrize(
    ("lora", "adapters"),
    [
        ([Switch(0, None)], (_FIRST,)),
        ([Switch(1, 0.25), Switch(0, None)], (Adapter("/b.gguf", 0.25), _FIRST)),
        ([Switch(0, 0.0)], ()),
        ([], ()),
    ],
    ids=["its own scale", "another", "off", "none"],
)
def test_adapters_are_those_that_are_named(lora: list[Switch], adapters: tuple[Adapter, ...]) -> None:
    assert tailored(_MARIO, _asked(), lora).adapters == adapters
    assert tailored(_MARIO, EmbedRequest(texts=("a",)), lora).adapters == adapters


@pytest.mark.parametrize(
    ("target", "said"),
    [(_MARIO, "there is no adapter 2: mario has 2, numbered from 0"), (_PLAIN, "no adapter 2: toy has none")],
)
def test_adapter_that_is_not_there(target: Target, said: str) -> None:
    with pytest.raises(ParameterError, match=said) as caught:
        tailored(target, _asked(), [Switch(2, 1.0)])
    assert caught.value.param == "lora[0].id"


def test_adapters_of_another_server() -> None:
    with pytest.raises(UnsupportedError, match="models of this machine only"):
        tailored(_FAR, _asked(), [])
