"""Fakes that behave as the real things do, for tests that need no model: a toy model, and an engine with a script.

`ToyBackend` stands below the real engine in llama.cpp's place. What its model says next is a function of the token ids
that are *stored* in the slot, position by position, so that a slip in slots, forks, cuts, restores or positions changes
the text. `ScriptedEngine` stands in the engine's place: it says what a test enqueued, and remembers what it was asked.
"""

from nbllm.testing.memory import ToyContext
from nbllm.testing.script import ScriptedEngine
from nbllm.testing.toy import ToyBackend, toy_engine
from nbllm.testing.vocabulary import BOS, EOS, IM_END, IM_START

__all__ = ["BOS", "EOS", "IM_END", "IM_START", "ScriptedEngine", "ToyBackend", "ToyContext", "toy_engine"]
