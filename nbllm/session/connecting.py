"""Models on other servers."""

from __future__ import annotations

from urllib.parse import urlsplit

from nbllm.config import checked_base_url, key_in_environment
from nbllm.runner.endpoint import EndpointEngine
from nbllm.session.model import Model

_OPENAI = "api.openai.com"
_OPENAI_KEY = "OPENAI_API_KEY"


def connect(
    base_url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    max_concurrency: int = 8,
    timeout: float | None = None,
    max_retries: int = 5,
) -> Model:
    """Use a model on another OpenAI-compatible server: nbllm's, llama-server, vLLM, Ollama, OpenAI.

    With a model named, nothing is sent before it is asked something.

    Args:
        base_url: the server's address up to /v1, such as "http://localhost:8000/v1".
        model: the server's name for it; None is the only one that it has.
        api_key: sent to that server only. Without one, OpenAI itself gets the key in OPENAI_API_KEY, others none.
        max_concurrency: requests that go out side by side; more wait.
        timeout: seconds that the server may be silent; None waits as long as a request's own timeout allows.
        max_retries: when the server is busy or cannot be reached, with growing pauses. One that has never answered is
            tried for a second only.

    Raises:
        ModelNotFoundError: none was named and the server has not exactly one; the message lists them.
        ModelError: the server wants a key, or another one.
        EndpointError: the server cannot be reached; the message says what to look at.
        EngineError: the server failed.
        ParameterError: an argument is of a wrong type or out of range.
    """
    url = checked_base_url("base_url", base_url)
    key_name = "api_key"
    if api_key is None and urlsplit(url).scheme == "https" and urlsplit(url).hostname == _OPENAI:
        api_key, key_name = key_in_environment(_OPENAI_KEY), _OPENAI_KEY
    engine = EndpointEngine(
        url,
        model,
        api_key=api_key,
        key_name=key_name,
        max_concurrency=max_concurrency,
        timeout_s=timeout,
        max_retries=max_retries,
    )
    try:
        engine.model_name()
    except BaseException:
        engine.close()
        raise
    return Model(engine)
