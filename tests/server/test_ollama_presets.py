"""Presets as models that clients ask: made over HTTP, listed, shown, and applied once on every route."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from nbllm.core import Adapter
from tests import lora
from tests.server.serving import CHAT, COMPLETIONS, EMBEDDINGS, TOY, Site
from tests.store.gguf_writer import tiny_model, u32, write

API = "nbllm/ollama/api/"
_MARIO = {
    "from": TOY,
    "system": "Be Mario.",
    "parameters": {"temperature": 0.25, "num_predict": 7, "stop": ["END"]},
    "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}],
    "license": ["MIT", "and more"],
}
_TURNS = [("system", "Be Mario."), ("user", "Who?"), ("assistant", "Me."), ("user", "Hi")]


def make(site: Site, name: str = "mario", **more: Any) -> None:
    answer = site.post(API + "create", {"model": name, "stream": False, **_MARIO, **more})
    assert (answer.status, answer.json()) == (200, {"status": "success"})


def _turns(request: Any) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in request.messages]


# ---- asked


@pytest.mark.parametrize("name", ["mario", "mario:latest", "MARIO"])
def test_chat_of_ollama(site: Site, name: str) -> None:
    make(site)
    engine = site.scripted("It's me")
    body = site.post(
        API + "chat", {"model": name, "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    ).json()
    assert (body["model"], body["message"]["content"]) == (name, "It's me")
    request: Any = engine.requests[-1]
    assert _turns(request) == _TURNS
    assert (request.sampling.temperature, request.sampling.max_tokens, request.sampling.stop) == (0.25, 7, ("END",))


def test_generate(site: Site) -> None:
    make(site)
    engine = site.scripted("a", "b")
    site.post(API + "generate", {"model": "mario", "prompt": "Hi", "stream": False})
    more = {"system": "Be Luigi.", "options": {"temperature": 1}}
    site.post(API + "generate", {"model": "mario", "prompt": "Hi", **more})
    first, second = engine.requests
    assert _turns(first) == _TURNS
    assert _turns(second) == [("system", "Be Luigi."), *_TURNS[1:]]
    assert second.sampling.temperature == 1  # type: ignore[union-attr]


def test_generate_that_goes_on_says_the_instructions_once(site: Site) -> None:
    make(site, parameters={"num_predict": 4, "temperature": 0})
    first = site.post(API + "generate", {"model": "mario", "prompt": "Hi", "stream": False}).json()
    after = site.post(
        API + "generate", {"model": "mario", "prompt": "Hi", "stream": False, "context": first["context"]}
    ).json()
    assert first["eval_count"] == after["eval_count"] == 4
    assert after["prompt_eval_count"] < 2 * first["prompt_eval_count"]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_of_openai(site: Site, stream: bool) -> None:
    make(site)
    engine = site.scripted("a")
    answer = site.post(CHAT, {"model": "mario", "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
    body = answer.events[0] if stream else answer.json()
    assert body["model"] == "mario"
    request: Any = engine.requests[-1]
    assert _turns(request) == _TURNS
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.25, 7)


def test_completion(site: Site) -> None:
    make(site)
    engine = site.scripted("a")
    site.post(COMPLETIONS, {"model": "mario", "prompt": ["Hi"]})
    request: Any = engine.requests[-1]
    assert (request.text, request.sampling.temperature, request.sampling.max_tokens) == ("Hi", 0.25, 7)


def test_counted_tokens_have_its_instructions(site: Site) -> None:
    make(site)
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    counts = [
        site.post(CHAT + "/input_tokens", {"model": name, **asked}).json()["input_tokens"] for name in (TOY, "mario")
    ]
    assert counts[0] < counts[1]


def test_vectors_and_tokens_are_its_bases(site: Site) -> None:
    make(site)
    for route, body in (
        (EMBEDDINGS, {"input": "a"}),
        ("v1/tokenize", {"content": "a"}),
        (API + "embed", {"input": "a"}),
    ):
        made = site.post(route, {"model": "mario", **body})
        assert (made.status, made.json()["model"]) == (200, "mario")


def test_presets_of_one_base_share_its_engine(site: Site) -> None:
    make(site)
    make(site, "luigi", system="Be Luigi.")
    for name in ("mario", "luigi", TOY, "mario"):
        assert site.post(API + "generate", {"model": name, "prompt": "x", "stream": False}).status == 200
    assert [spec.name for spec in site.cast.specs] == [TOY]
    running = site.get(API + "ps").json()["models"]
    assert [model["name"] for model in running] == ["mario:latest", "luigi:latest", "toy:latest"]
    tags = {each["name"]: each["digest"] for each in site.get(API + "tags").json()["models"]}
    assert {model["name"]: model["digest"] for model in running}.items() <= tags.items()
    assert site.post(API + "generate", {"model": "luigi", "keep_alive": 0}).json()["done_reason"] == "unload"
    assert site.get(API + "ps").json()["models"] == []


def test_ps_has_no_name_that_means_other_weights_now(site: Site) -> None:
    write(site.models_dir / "spare.gguf", tiny_model())
    try:
        make(site)
        site.post(API + "generate", {"model": "mario"})
        make(site, **{"from": "spare"})
        site.post(API + "generate", {"model": "mario"})
        assert [model["name"] for model in site.get(API + "ps").json()["models"]] == ["toy:latest", "mario:latest"]
    finally:
        (site.models_dir / "spare.gguf").unlink()


def test_preset_with_its_own_context_is_loaded_so(site: Site) -> None:
    make(site, parameters={"num_ctx": 128, "num_thread": 3})
    site.post(API + "generate", {"model": "mario"})
    options = site.cast.specs[-1].options
    assert (options.context_length, options.threads) == (128, 3)


def test_context_of_a_preset_is_no_longer_than_the_model_has_learnt(site: Site) -> None:
    path = write(site.models_dir / "sized.gguf", tiny_model(llama__context_length=u32(1024)))
    try:
        longer: dict[str, Any] = {"from": "sized", "parameters": {"num_ctx": 131072}}
        make(site, **longer)
        assert site.post(API + "generate", {"model": "mario"}).status == 200
        assert site.cast.specs[-1].options.context_length == 1024
    finally:
        path.unlink()


def test_model_of_an_upload_is_listed_by_a_name_that_can_be_asked_for(site: Site) -> None:
    data = tiny_model(llama__block_count=u32(5))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert site.post(f"{API}blobs/{digest}", data).status == 201
    assert site.post(API + "create", {"model": "sent", "files": {"m.gguf": digest}, "stream": False}).status == 200
    assert site.post(API + "generate", {"model": "sent"}).status == 200
    assert [model["name"] for model in site.get(API + "ps").json()["models"]] == ["sent:latest"]


def test_preset_of_a_preset(site: Site) -> None:
    make(site)
    make(site, "little", **{"from": "mario", "system": "Be small.", "messages": []})
    engine = site.scripted("a")
    site.post(CHAT, {"model": "little", "messages": [{"role": "user", "content": "Hi"}]})
    assert _turns(engine.requests[-1]) == [("system", "Be small."), *_TURNS[1:]]


# ---- templates and adapters


def test_template_of_the_preset_and_of_the_request(site: Site) -> None:
    make(site, template="{{ messages[-1].content }}!")
    engine = site.scripted("a", "b", "c")
    for more in ({}, {"template": "{{ 'mine' }}"}, {"template": "{{ .Prompt }}"}):
        site.post(API + "generate", {"model": "mario", "prompt": "Hi", "stream": False, **more})
    templates = [request.template for request in engine.requests]  # type: ignore[union-attr]
    assert templates == ["{{ messages[-1].content }}!", "{{ 'mine' }}", "{{ messages[-1].content }}!"]
    assert any("Go's language" in line for line in site.log.lines)


def test_template_of_ollamas_is_kept_and_not_used(site: Site) -> None:
    make(site, template="{{ .System }} {{ .Prompt }}")
    assert any("Ollama's language" in line for line in site.log.lines)
    shown = site.post(API + "show", {"model": "mario"}).json()
    assert "{{ .Prompt }}" in shown["modelfile"]
    assert "for m in messages" in shown["template"]


def _adapter(site: Site, folder: Path, seed: int = 0) -> str:
    data = lora.for_model(folder / "a.gguf", site.models_dir / f"{TOY}.gguf", seed=seed).read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert site.post(API + f"blobs/{digest}", data).status == 201
    return digest


def test_adapters_of_the_preset_and_of_the_request(site: Site, tmp_path: Path) -> None:
    first, second = _adapter(site, tmp_path, 1), _adapter(site, tmp_path, 2)
    make(site, adapters={"a.gguf": first, "b.gguf": second})
    paths = [str(site.models_dir / ".blobs" / digest.replace(":", "-")) for digest in (first, second)]
    engine = site.scripted(*"abcd")
    asked = {"model": "mario", "messages": [{"role": "user", "content": "Hi"}]}
    site.post(CHAT, asked)
    site.post(CHAT, {**asked, "lora": [{"id": 1, "scale": 0.5}]})
    site.post(API + "generate", {"model": "mario", "prompt": "Hi", "lora": []})
    site.post(COMPLETIONS, {"model": "mario", "prompt": "Hi"})
    both = tuple(Adapter(path) for path in paths)
    assert [request.adapters for request in engine.requests] == [both, (Adapter(paths[1], 0.5),), (), both]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS, API + "generate", API + "embed"])
@pytest.mark.parametrize("lora", [[{"id": 0}], [{"path": "/etc/passwd"}]], ids=["id", "path"])
def test_adapter_that_is_not_there(site: Site, path: str, lora: Any) -> None:
    body = {"model": TOY, "messages": [{"role": "user", "content": "a"}], "prompt": "a", "input": "a", "lora": lora}
    answer = site.post(path, body)
    assert answer.status == 400
    assert "lora[0]" in str(answer.json()["error"])


# ---- listed and shown


def test_lists_have_it(site: Site) -> None:
    before = {model["name"]: model for model in site.get(API + "tags").json()["models"]}
    make(site)
    models = {model["name"]: model for model in site.get(API + "tags").json()["models"]}
    assert set(models) == {*before, "mario:latest"}
    mario, toy = models["mario:latest"], models["toy:latest"]
    assert mario["details"] == {**toy["details"], "parent_model": "toy:latest"}
    assert (mario["size"], len(mario["digest"])) == (toy["size"], 64)
    assert mario["digest"] != toy["digest"] == before["toy:latest"]["digest"]
    assert mario["modified_at"] >= toy["modified_at"]
    assert "mario" in [model["id"] for model in site.get("v1/models").json()["data"]]
    assert site.get("v1/models/mario").json()["id"] == "mario"
    make(site, system="Be Luigi.")
    changed = {model["name"]: model["digest"] for model in site.get(API + "tags").json()["models"]}
    assert changed["mario:latest"] != mario["digest"]


def test_show(site: Site) -> None:
    make(site, template="{{ messages[0].content }}")
    body = site.post(API + "show", {"model": "mario"}).json()
    assert body["system"] == "Be Mario."
    assert body["messages"] == _MARIO["messages"]
    assert body["license"] == "MIT\nand more"
    assert body["template"] == "{{ messages[0].content }}"
    assert {line.split()[0]: line.split()[1] for line in body["parameters"].splitlines()} == {
        "temperature": "0.25",
        "num_predict": "7",
        "stop": "END",
    }
    assert body["modelfile"].startswith("FROM toy:latest\n")
    assert body["details"]["parent_model"] == "toy:latest"
    assert body["model_info"]["general.architecture"] == "llama"
    assert str(site.folder) not in json.dumps(body)


def test_shown_modelfile_makes_the_same_model(site: Site) -> None:
    make(site)
    text = site.post(API + "show", {"model": "mario"}).json()["modelfile"]
    assert site.post(API + "create", {"model": "again", "modelfile": text, "stream": False}).status == 200
    assert site.post(API + "show", {"model": "again"}).json()["modelfile"] == text


def test_adapter_that_does_not_fit_is_refused_at_once(site: Site) -> None:
    digest = "sha256:" + hashlib.sha256(b"no adapter").hexdigest()
    site.post(API + f"blobs/{digest}", b"no adapter")
    answer = site.post(API + "create", {"model": "mario", "from": TOY, "adapters": {"a": digest}})
    assert answer.status == 400
    assert answer.json()["error"].startswith("adapters[0]: sha256-")
    assert str(site.folder) not in answer.json()["error"]


def test_show_of_adapters_says_nothing_of_folders(site: Site, tmp_path: Path) -> None:
    make(site, adapters={"a.gguf": _adapter(site, tmp_path)})
    body = site.post(API + "show", {"model": "mario"}).json()
    assert "ADAPTER sha256-" in body["modelfile"]
    assert str(site.folder) not in json.dumps(body)


def test_preset_whose_base_has_gone_is_no_model_any_more(site: Site, tmp_path: Path) -> None:
    make(site)
    file = site.models_dir / f"{TOY}.gguf"
    kept = file.rename(tmp_path / "kept")
    try:
        answer = site.post(API + "generate", {"model": "mario", "prompt": "x"})
        assert answer.status == 404
        assert "is made from a model" in answer.json()["error"]
        assert str(site.folder) not in answer.json()["error"]
        assert "mario:latest" not in [model["name"] for model in site.get(API + "tags").json()["models"]]
    finally:
        kept.rename(file)


def test_key_for_some_models_opens_its_presets_only(site: Site) -> None:
    make(site)
    headers = {"Authorization": f"Bearer {site.keys.create('narrow', models=['mario']).secret}"}
    asked = {"prompt": "x", "stream": False}
    assert site.post(API + "generate", {"model": "mario", **asked}, headers=headers, bare=True).status == 200
    assert site.post(API + "generate", {"model": TOY, **asked}, headers=headers, bare=True).status == 403
