from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.config import Config, load_config
from nbllm.config.registry import is_secure
from nbllm.errors import ParameterError


def test_registry_is_ollamas() -> None:
    assert Config().registry == "https://registry.ollama.ai"


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("https://models.example/", "https://models.example"),
        ("https://models.example:8443/below", "https://models.example:8443/below"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("http://localhost", "http://localhost"),
        ("", ""),
        (" None ", ""),
    ],
)
def test_registry_is_an_address_or_off(value: str, means: str) -> None:
    assert Config(registry=value).registry == means


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("registry.ollama.ai", "is not an http or https address"),
        ("http://registry.ollama.ai", "http is for this machine alone"),
        ("http://10.0.0.1", "http is for this machine alone"),
        ("http://127.0.0.1.example", "http is for this machine alone"),
        ("ftp://127.0.0.1", "is not an http or https address"),
        ("https://user:secret@registry.ollama.ai", "must not hold a name or password"),
        ("https://registry.ollama.ai?x=1", "must not hold a query"),
        (None, "must be a server's address"),
        (7, "must be a server's address"),
    ],
)
def test_registry_that_cannot_be_asked_is_refused(value: object, says: str) -> None:
    with pytest.raises(ParameterError, match=says) as refused:
        Config(registry=value)  # type: ignore[arg-type]
    assert 'write for example "https://registry.ollama.ai"' in str(refused.value) or "password" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("text", "means"), [("none", ""), ("http://127.0.0.1:9", "http://127.0.0.1:9")])
def test_registry_from_its_variable(text: str, means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_REGISTRY", text)
    assert load_config().registry == means


def test_registry_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text('registry = ""\n')
    monkeypatch.setenv("NBLLM_CONFIG", str(file))
    monkeypatch.delenv("NBLLM_REGISTRY", raising=False)
    assert load_config().registry == ""


def test_registry_that_is_wrong_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBLLM_REGISTRY", "ollama.ai")
    with pytest.raises(ParameterError, match=r"^NBLLM_REGISTRY: 'ollama\.ai' is not an http"):
        load_config()


@pytest.mark.parametrize(
    ("address", "is_safe"),
    [
        ("https://a.example", True),
        ("http://a.example", False),
        ("http://127.3.2.1:80/x", True),
        ("http://localhost.example", False),
        ("file:///etc/passwd", False),
        ("https:", True),
        ("", False),
    ],
)
def test_is_secure(address: str, is_safe: bool) -> None:
    assert is_secure(address) is is_safe
