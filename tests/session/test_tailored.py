"""What a preset's model asks its engine: the preset once, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nbllm.core import (
    ChoiceRequest,
    EmbedRequest,
    GenerateRequest,
    Message,
    SamplingParams,
    ScoreRequest,
)
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset
from nbllm.engine.interface import iter_chunks
from nbllm.errors import EngineClosedError
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine

SYSTEM = Message("system", "You are Mario.")
EXAMPLE = (Message("user", "Who?"), Message("assistant", "It's-a me!"))
HI = Message("user", "hi")
MARIO = Preset(
    name="mario",
    base="toy",
    system=SYSTEM.content,
    messages=EXAMPLE,
    sampling=SamplingParams(temperature=0.0, max_tokens=7, stop=("!",)),
    template="{{ messages }}",
    adapters=(Adapter("/loras/mario.gguf", 0.5),),
)
WHOLE = (SYSTEM, *EXAMPLE, HI)

Ask = Callable[[Model], Any]


async def _achat(model: Model) -> None:
    await model.achat("hi")


async def _astream(model: Model) -> None:
    async for _ in model.astream("hi"):
        pass


CHATS: dict[str, Ask] = {
    "chat": lambda model: model.chat("hi"),
    "stream": lambda model: list(model.stream("hi")),
    "achat": lambda model: asyncio.run(_achat(model)),
    "astream": lambda model: asyncio.run(_astream(model)),
    "chat_many": lambda model: model.chat_many(["hi"]),
    "conversation": lambda model: model.conversation().send("hi"),
    "engine": lambda model: list(iter_chunks(model.engine, GenerateRequest(messages=(HI,)))),
    "applied": lambda model: list(iter_chunks(model.base_engine, model.applied(GenerateRequest(messages=(HI,))))),
}


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def model(engine: ScriptedEngine) -> Model:
    return Model(engine, preset=MARIO)


@pytest.mark.parametrize("ask", [pytest.param(ask, id=name) for name, ask in CHATS.items()])
def test_chat_gets_the_preset_once(engine: ScriptedEngine, model: Model, ask: Ask) -> None:
    engine.enqueue("Wahoo")
    ask(model)
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert request.messages == WHOLE
    assert (request.sampling.temperature, request.sampling.max_tokens, request.sampling.stop) == (0.0, 7, ("!",))
    assert (request.template, request.adapters) == (MARIO.template, MARIO.adapters)


def test_second_turn_of_a_conversation_has_the_preset_once(engine: ScriptedEngine, model: Model) -> None:
    engine.enqueue("Wahoo")
    engine.enqueue("Yes")
    talk = model.conversation()
    talk.send("hi")
    talk.send("really?")
    assert talk.history == (HI, Message("assistant", "Wahoo"), Message("user", "really?"), Message("assistant", "Yes"))
    assert engine.requests[1].messages == (*WHOLE, *talk.history[1:3])  # type: ignore[union-attr]


def test_call_wins_over_the_preset(engine: ScriptedEngine, model: Model) -> None:
    engine.enqueue("Wahoo")
    model.chat("hi", system="You are Luigi.", temperature=1.5, stop=["?"])
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert request.messages == (Message("system", "You are Luigi."), *EXAMPLE, HI)
    assert (request.sampling.temperature, request.sampling.max_tokens, request.sampling.stop) == (1.5, 7, ("?",))


def test_completion_gets_parameters_and_adapters_only(engine: ScriptedEngine, model: Model) -> None:
    engine.enqueue("Wahoo")
    model.complete("It's-a")
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert (request.text, request.template, request.adapters) == ("It's-a", None, MARIO.adapters)
    assert request.sampling.max_tokens == 7


def test_numbers_get_the_preset(engine: ScriptedEngine, model: Model) -> None:
    model.embed("a")
    model.score("hi", " there", chat=True)
    model.choose("hi", ["yes", "no"])
    embed, score, choose = engine.requests[-3:]
    assert isinstance(embed, EmbedRequest)
    assert isinstance(score, ScoreRequest)
    assert isinstance(choose, ChoiceRequest)
    assert {embed.adapters, score.adapters, choose.adapters} == {MARIO.adapters}
    assert (score.messages, choose.messages) == (WHOLE, WHOLE)
    assert {score.template, choose.template} == {MARIO.template}


def test_tokens_of_messages_are_those_of_all_that_is_sent(engine: ScriptedEngine) -> None:
    plain, mario = Model(engine), Model(engine, preset=Preset(name="mario", base="toy", system=SYSTEM.content))
    turn = {"role": "user", "content": "hi"}
    assert mario.count_tokens([turn]) == plain.count_tokens([{"role": "system", "content": SYSTEM.content}, turn])
    assert mario.count_tokens("hi") == plain.count_tokens("hi")


def test_info_has_the_presets_name_and_defaults(engine: ScriptedEngine, model: Model) -> None:
    info = model.info
    assert (model.name, info.model.source) == ("mario", "preset")
    assert (info.defaults.temperature, info.defaults.max_tokens, info.defaults.stop) == (0.0, 7, ("!",))
    assert info.defaults.top_k == engine.info.defaults.top_k
    assert info.summary == "mario, made of scripted"
    assert info.model.path == engine.info.model.path


def test_answer_says_that_the_preset_gave_it(engine: ScriptedEngine, model: Model) -> None:
    engine.enqueue("Wahoo")
    assert model.chat("hi").model == "mario"


def test_model_whose_engine_is_left_to_others_answers_no_more(engine: ScriptedEngine) -> None:
    model = Model(engine, on_close=lambda: False, preset=MARIO)
    model.close()
    model.close()
    assert not engine.is_closed
    for ask in (lambda: model.chat("hi"), lambda: model.embed("a"), lambda: model.count_tokens("a")):
        with pytest.raises(EngineClosedError, match=r"load it again: nbllm\.load\('mario'\)"):
            ask()
    assert (model.name, model.stats.num_running) == ("mario", 0)


@pytest.mark.parametrize("answer", [pytest.param(True, id="yes"), pytest.param(None, id="nothing said")])
def test_model_whose_engine_nobody_uses_closes_it(engine: ScriptedEngine, answer: bool | None) -> None:
    Model(engine, on_close=lambda: answer).close()
    assert engine.is_closed
