"""Ollama's own variables."""

from __future__ import annotations

import pytest

from nbllm.config import ollama_host, ollama_password
from nbllm.errors import ParameterError


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("0.0.0.0:11434", "0.0.0.0", 11434),
        ("0.0.0.0", "0.0.0.0", 11434),
        ("localhost", "localhost", 11434),
        (":8080", "127.0.0.1", 8080),
        ("http://10.0.0.5", "10.0.0.5", 80),
        ("https://10.0.0.5/", "10.0.0.5", 443),
        ("http://10.0.0.5:99/path", "10.0.0.5", 99),
        ("[::1]:11434", "::1", 11434),
        ("[::]", "::", 11434),
        (' "0.0.0.0:1" ', "0.0.0.0", 1),
    ],
)
def test_address(monkeypatch: pytest.MonkeyPatch, text: str, ip: str, port: int) -> None:
    monkeypatch.setenv("OLLAMA_HOST", text)
    assert ollama_host() == (ip, port)


@pytest.mark.parametrize("text", ["0.0.0.0:99999", "a b", "::1", "host:port", "ftp://x", "host:"])
def test_address_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", text)
    with pytest.raises(ParameterError, match="OLLAMA_HOST: must be an address such as"):
        ollama_host()


def test_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_BASIC_AUTH"):
        monkeypatch.setenv(name, "")
    assert (ollama_host(), ollama_password()) == (None, None)


def test_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASIC_AUTH", "ada:p:w")
    assert ollama_password() == "ada:p:w"


@pytest.mark.parametrize("text", ["ada", "ada:", ":secret"])
def test_password_without_a_part_is_refused_and_not_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OLLAMA_BASIC_AUTH", text)
    with pytest.raises(ParameterError, match="OLLAMA_BASIC_AUTH: must be user:password") as failure:
        ollama_password()
    assert "secret" not in str(failure.value)
