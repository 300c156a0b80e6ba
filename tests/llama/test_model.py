"""A loaded file: vocabulary, metadata, and what is said when it cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.errors import InvalidRequestError, ModelLoadError, ParameterError
from nbllm.llama.model import LlamaModel

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> Iterator[LlamaModel]:
    made = LlamaModel(str(smollm2_path))
    yield made
    made.close()
    made.close()


@pytest.mark.parametrize("text", ["hello world", "grüße, 世界 🙂", " \n\t x", "", "a" * 500, "🏳️‍🌈é"])
def test_text_goes_to_tokens_and_back(model: LlamaModel, text: str) -> None:
    assert model.detokenize(model.tokenize(text, add_special=False, parse_special=False)).decode() == text


def test_control_texts_are_tokens_only_when_parsed(model: LlamaModel) -> None:
    assert "<|im_end|>" in model.control_texts()
    assert len(model.tokenize("<|im_end|>", add_special=False, parse_special=True)) == 1
    assert len(model.tokenize("<|im_end|>", add_special=False, parse_special=False)) > 1


def test_end_of_turn_ends_and_has_no_bytes(model: LlamaModel) -> None:
    (end,) = model.tokenize("<|im_end|>", add_special=False, parse_special=True)
    assert model.is_end(end)
    assert model.pieces[end] == b""
    assert model.special("eos") == end


def test_metadata_longer_than_the_buffer_is_whole(model: LlamaModel) -> None:
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("no.such.key") is None
    assert model.chat_template is not None
    assert "im_start" in model.chat_template


def test_ids_out_of_range_are_refused(model: LlamaModel) -> None:
    model.check_ids([0, model.vocabulary_size - 1], "tokens")
    for token in (-1, model.vocabulary_size):
        with pytest.raises(ParameterError, match="tokens"):
            model.check_ids([token], "tokens")


def test_lone_surrogate_is_refused(model: LlamaModel) -> None:
    with pytest.raises(InvalidRequestError, match=r"U\+D800"):
        model.tokenize("a\ud800", add_special=False, parse_special=False)


def test_refused_file_quotes_llama_cpp(model: LlamaModel, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    with pytest.raises(ModelLoadError) as refusal:
        LlamaModel(str(path))
    assert "bad.gguf" in str(refusal.value)
    assert "gave no reason" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
