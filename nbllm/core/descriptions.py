"""What there is to know of a model, of an engine and of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from nbllm.core.sampling import SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a GGUF file says of itself, as its metadata tells without loading it.

    Attributes:
        name: what `nbllm.load` takes.
        path: the file; the first one of a split model.
        size_bytes: of all its files.
        architecture: llama.cpp's name for the family ("llama", "gemma3", ...).
        quantization: of most weights ("Q4_1", "Q8_0", "F16", ...), "" when the file does not say.
        parameters: number of weights, 0 when the file does not say.
        context_length: what the model was trained for, in tokens.
        kv_bytes_per_token: of an f16 cache over all layers, both K and V.
        loaded: whether this process holds it.
        problem: why it cannot be loaded, "" when it looks well.
        source: in the list of models, where it comes from: "bundled", "nbllm" (the models folder), "folder" (another
            one of the settings), "ollama", "huggingface", "lmstudio" or "gpt4all"; "preset" for what was made of
            another model, whose file and figures it then has.
    """

    name: str
    path: str
    size_bytes: int
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    context_length: int = 0
    vocabulary_size: int = 0
    embedding_length: int = 0
    kv_bytes_per_token: int = 0
    sliding_window: int = 0
    has_chat_template: bool = False
    loaded: bool = False
    problem: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine holds and what it chose.

    Attributes:
        context_length: tokens that one sequence may have.
        max_sequences: sequences that run side by side.
        kv_tokens: size of the pool that they share, in tokens.
        kv_type: of the cached keys and values ("f16", "q8_0").
        gpu_layers: layers on a GPU, 0 without one.
        defaults: what a request gets where it says nothing.
        template_note: how messages become text where the model's own template does not suffice, "" otherwise.
        summary: one line for a person.
        flash_attention: whether it is used, where that is unusual for the build and the cache; None as usual.
    """

    model: ModelInfo
    context_length: int
    max_sequences: int
    kv_tokens: int
    kv_type: str
    gpu_layers: int
    defaults: SamplingParams
    template_note: str = ""
    summary: str = ""
    flash_attention: bool | None = None


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """Exactly what a request becomes: the text, its token ids, and what was done to the messages on the way."""

    text: str
    tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()
    opens_reasoning: bool = False
