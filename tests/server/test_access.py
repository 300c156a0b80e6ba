from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nbllm.errors import ParameterError
from nbllm.server.access import Access, Guard, Policy, decide, notebook_access, policy_for, require, too_many
from nbllm.server.attempts import Attempts
from nbllm.server.credentials import MALFORMED, NOTHING, Presented
from nbllm.server.keys import Key, KeyStore, Verdict
from nbllm.server.keyslots import KeySlots
from nbllm.server.origins import AllowedOrigins
from nbllm.server.scopes import ALL_SCOPES, Scope

TOKEN = "f" * 48
ORIGINS = AllowedOrigins.parse(["http://localhost:*", "http://127.0.0.1:*"])
CLOSED = Policy(origins=ORIGINS)
OPEN = Policy(origins=ORIGINS, is_open=True)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.json")


@pytest.fixture
def key(store: KeyStore) -> Key:
    return store.create("laptop", scopes=["chat"], models=["a", "b"], max_concurrent=2).key


def decided(
    policy: Policy = OPEN, credentials: Presented = NOTHING, verdict: Verdict | None = None, **seen: Any
) -> Access:
    usual = {"address": "127.0.0.1", "host": "localhost:4891", "origin": None}
    return decide(policy, credentials, verdict or Verdict(), **(usual | seen))


# Whom an open server lets in


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param({}, id="a program"),
        pytest.param({"address": "::1", "host": "[::1]:4891"}, id="ipv6"),
        pytest.param({"origin": "http://localhost:3000"}, id="a page of this machine"),
        pytest.param({"credentials": Presented("not-needed")}, id="a key for show"),
        pytest.param({"credentials": MALFORMED}, id="what cannot be a key"),
    ],
)
def test_open_server_lets_in(seen: dict[str, Any]) -> None:
    access = decided(**seen)
    assert access.granted
    assert access.name == "anonymous"
    assert access.scopes == {"chat", "embeddings", "models"}


@pytest.mark.parametrize(
    ("seen", "status", "code"),
    [
        pytest.param({"host": "evil.example"}, 403, "host_not_allowed", id="rebound name"),
        pytest.param({"host": None}, 403, "host_not_allowed", id="no host"),
        pytest.param({"origin": "https://evil.example"}, 403, "origin_not_allowed", id="another page"),
        pytest.param({"origin": "null"}, 403, "origin_not_allowed", id="a page without an origin"),
        pytest.param({"origin": ""}, 403, "origin_not_allowed", id="empty origin"),
        pytest.param({"address": "192.0.2.1"}, 401, "invalid_api_key", id="another machine"),
        pytest.param({"address": ""}, 401, "invalid_api_key", id="no address"),
        pytest.param({"is_forwarded": True}, 401, "invalid_api_key", id="through a proxy"),
    ],
)
def test_open_server_keeps_out(seen: dict[str, Any], status: int, code: str) -> None:
    access = decided(**seen)
    assert not access.granted
    assert (access.status, access.code) == (status, code)
    assert "Authorization: Bearer" in access.message
    assert not access.scopes


@pytest.mark.parametrize("scope", ["manage", "kernel"])
def test_open_server_asks_for_a_key_to_do_more(scope: Scope) -> None:
    access = require(decided(), scope)
    assert (access.status, access.is_guess) == (401, False)
    assert not access.scopes


def test_open_server_says_why_a_key_does_not_count_where_one_is_needed() -> None:
    access = require(decided(credentials=Presented("x"), verdict=Verdict(problem="it expired")), "manage")
    assert access.status == 401
    assert access.is_guess
    assert "it expired" in access.message


# Keys and the token


@pytest.mark.parametrize("policy", [OPEN, CLOSED], ids=["open", "closed"])
@pytest.mark.parametrize(
    "seen", [{}, {"host": "evil.example", "origin": "https://evil.example", "address": "192.0.2.1"}]
)
def test_key_lets_in_from_anywhere_with_its_own_scopes(policy: Policy, seen: dict[str, Any], key: Key) -> None:
    access = decided(policy, Presented("x"), Verdict(key), **seen)
    assert access.granted
    assert (access.key, access.name) == (key, "laptop")
    assert access.scopes == {"chat"}


def test_token_has_every_scope() -> None:
    access = decided(CLOSED, Presented("x"), is_jupyter_token=True)
    assert access == notebook_access()
    assert access.scopes == ALL_SCOPES
    assert require(access, "manage", "any") is access


@pytest.mark.parametrize(
    ("credentials", "problem", "said", "is_guess"),
    [
        pytest.param(NOTHING, "", "This server needs a key", False, id="nothing"),
        pytest.param(Presented("x"), "it is wrong", "it is wrong", True, id="wrong"),
        pytest.param(MALFORMED, "", "characters that no key has", False, id="malformed"),
    ],
)
def test_closed_server_keeps_out(credentials: Presented, problem: str, said: str, is_guess: bool) -> None:
    access = decided(CLOSED, credentials, Verdict(problem=problem))
    assert (access.status, access.code, access.is_guess) == (401, "invalid_api_key", is_guess)
    assert said in access.message


# What a key includes


def test_require_what_the_key_includes(key: Key) -> None:
    access = decided(CLOSED, Presented("x"), Verdict(key))
    assert require(access, "chat", "a") is access
    assert require(access, "chat") is access
    assert require(access, "chat", "alias", "b") is access
    assert access.may_use("a")
    assert not access.may_use("c")


@pytest.mark.parametrize(
    ("scope", "models", "code", "said"),
    [
        pytest.param("embeddings", ["a"], "insufficient_scope", "--scopes embeddings", id="scope"),
        pytest.param("chat", ["c"], "model_not_allowed", "does not open the model 'c'; it opens a, b", id="model"),
        pytest.param("chat", ["alias", "c"], "model_not_allowed", "the model 'alias'", id="model by alias"),
        pytest.param("chat", [""], "model_not_allowed", "the model ''", id="no name"),
    ],
)
def test_require_what_the_key_does_not_include(key: Key, scope: Scope, models: list[str], code: str, said: str) -> None:
    access = require(decided(CLOSED, Presented("x"), Verdict(key)), scope, *models)
    assert (access.status, access.code, access.name) == (403, code, "laptop")
    assert said in access.message


def test_require_of_a_refusal_is_that_refusal() -> None:
    refusal = decided(CLOSED)
    assert require(refusal, "chat", "a") is refusal


# How the server is run


@pytest.mark.parametrize(
    ("bind", "is_alone", "is_under_hub", "has_keys", "is_open"),
    [
        pytest.param("127.0.0.1", True, False, False, True, id="alone"),
        pytest.param("localhost", True, False, True, True, id="alone with keys"),
        pytest.param("127.0.0.1", True, True, False, False, id="alone under a hub"),
        pytest.param("0.0.0.0", True, False, True, False, id="for other machines, with keys"),
        pytest.param("localhost", False, False, False, False, id="in a notebook server"),
        pytest.param("", False, False, False, False, id="in a notebook server for other machines"),
    ],
)
def test_policy_for(bind: str, is_alone: bool, is_under_hub: bool, has_keys: bool, is_open: bool) -> None:
    policy = policy_for(bind, origins=ORIGINS, is_alone=is_alone, is_under_hub=is_under_hub, has_keys=has_keys)
    assert policy == Policy(origins=ORIGINS, is_open=is_open, is_alone=is_alone)
    assert ("Jupyter's token" in policy.advice) is not is_alone


def test_no_keys_opens_the_models_of_this_machine_to_its_programs(store: KeyStore) -> None:
    policy = policy_for("127.0.0.1", origins=ORIGINS, is_alone=True, is_under_hub=False, has_keys=True, no_keys=True)
    assert policy.open_scopes == {"chat", "embeddings", "models", "manage"}
    access = guard(store, policy).check({"Host": "localhost"}, "127.0.0.1")
    assert require(access, "manage").granted
    assert not require(access, "kernel").granted
    assert not guard(store, policy).check({"Host": "localhost", "Origin": "https://evil.example"}, "127.0.0.1").granted
    assert not guard(store, policy).check({"Host": "localhost"}, "203.0.113.5").granted


def test_without_it_they_need_the_scope_manage(store: KeyStore) -> None:
    policy = policy_for("127.0.0.1", origins=ORIGINS, is_alone=True, is_under_hub=False, has_keys=False)
    access = require(guard(store, policy).check({"Host": "localhost"}, "127.0.0.1"), "manage")
    assert access.status == 401
    assert "--scopes manage" in access.message
    assert "--no-keys" in access.message


@pytest.mark.parametrize(
    "more",
    [{"bind": "0.0.0.0"}, {"is_alone": False}, {"is_under_hub": True}, {"has_password": True}],
    ids=["other machines", "notebook server", "hub", "password"],
)
def test_no_keys_where_keys_are_needed_refuses(more: Any) -> None:
    usual = {"bind": "127.0.0.1", "is_alone": True, "is_under_hub": False, "has_keys": True, "no_keys": True}
    with pytest.raises(ParameterError, match="--no-keys"):
        policy_for(**{**usual, **more}, origins=ORIGINS)


@pytest.mark.parametrize("bind", ["", "0.0.0.0", "::", "*", "192.0.2.1", "myhost"])
def test_policy_for_other_machines_without_keys_refuses(bind: str) -> None:
    with pytest.raises(ParameterError, match="jupyter nbllm keys create"):
        policy_for(bind, origins=ORIGINS, is_alone=True, is_under_hub=False, has_keys=False)


# Everything together


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", "Host": "localhost"}


def guard(store: KeyStore, policy: Policy = CLOSED, token: str = TOKEN) -> Guard:
    return Guard(policy, store, notebook_token=lambda: token, attempts=Attempts(3, clock=lambda: 0.0))


def test_guard_knows_keys_and_token(store: KeyStore) -> None:
    secret = store.create("laptop").secret
    assert guard(store).check(bearer(secret), "192.0.2.1").name == "laptop"
    assert guard(store).check(bearer(TOKEN), "192.0.2.1").name == "notebook"
    assert guard(store).check(bearer(TOKEN[:-1]), "192.0.2.1").status == 401


@pytest.mark.parametrize("headers", [{}, bearer(""), {"X-Api-Key": ""}], ids=["nothing", "bearer", "x-api-key"])
def test_guard_of_a_server_without_a_token(store: KeyStore, headers: dict[str, str]) -> None:
    """An empty token is no token that one could present."""
    assert guard(store, token="").check(headers, "127.0.0.1").status == 401


def test_guard_notices_revocation_and_expiry(store: KeyStore) -> None:
    watching = guard(store)
    secret = store.create("laptop", expires_in=timedelta(hours=1)).secret
    assert watching.check(bearer(secret), "a").granted
    store.revoke("laptop")
    refusal = watching.check(bearer(secret), "a")
    assert refusal.status == 401
    assert "wrong or was revoked" in refusal.message


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP"])
def test_guard_of_an_open_server_behind_a_proxy_wants_a_key(store: KeyStore, header: str) -> None:
    from tornado.httputil import HTTPHeaders

    watching = guard(store, OPEN)
    assert watching.check(HTTPHeaders({"Host": "localhost"}), "127.0.0.1").granted
    assert watching.check(HTTPHeaders({"Host": "localhost", header: "x"}), "127.0.0.1").status == 401


@pytest.mark.skipif(os.name != "posix", reason="POSIX")
@pytest.mark.parametrize(
    ("policy", "name", "status"), [(OPEN, "anonymous", 200), (CLOSED, "-", 503)], ids=["open", "closed"]
)
def test_guard_with_keys_that_others_can_read(store: KeyStore, policy: Policy, name: str, status: int) -> None:
    secret = store.create("laptop").secret
    store.path.chmod(0o644)
    headers = bearer(secret)
    headers["Host"] = "localhost"
    access = guard(store, policy).check(headers, "127.0.0.1")
    assert (access.status, access.name, bool(access.retry_after_s)) == (status, name, status == 503)
    assert str(store.path) not in access.message
    assert "chmod 600" in access.cause
    assert guard(store, policy).check(bearer(TOKEN), "127.0.0.1").granted


def test_guard_counts_wrong_keys_and_a_right_one_passes(store: KeyStore) -> None:
    secret = store.create("laptop").secret
    watching = guard(store)

    def status(key: str, address: str = "192.0.2.1") -> int:
        return watching.settled(watching.check(bearer(key), address), address).status

    assert [status("wrong") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert status(secret) == 200
    assert status("wrong", "192.0.2.2") == 401
    refusal = watching.settled(watching.check(bearer("wrong"), "192.0.2.1"), "192.0.2.1")
    assert refusal.retry_after_s == 20
    assert refusal.code == "rate_limit_exceeded"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer a b"}], ids=["nothing", "malformed"])
def test_guard_does_not_count_those_who_guess_nothing(store: KeyStore, headers: dict[str, str]) -> None:
    watching = guard(store)
    statuses = {watching.settled(watching.check(headers, "a"), "a").status for _ in range(20)}
    assert statuses == {401}


def test_guard_of_an_open_server_counts_only_what_it_refuses(store: KeyStore) -> None:
    watching = guard(store, OPEN)
    for _ in range(20):
        assert watching.settled(watching.check(bearer("not-needed"), "127.0.0.1"), "127.0.0.1").granted
    managing = [require(watching.check(bearer("guess"), "127.0.0.1"), "manage") for _ in range(4)]
    assert [watching.settled(access, "127.0.0.1").status for access in managing] == [401, 401, 401, 429]


# At a time


def test_slots_up_to_the_keys_limit(key: Key) -> None:
    slots = KeySlots()
    first, second = slots.acquire(key), slots.acquire(key)
    assert first is not None
    assert second is not None
    assert slots.acquire(key) is None
    first.release()
    first.release()  # once is enough
    with slots.acquire(key) or pytest.fail("no place"):
        assert slots.acquire(key) is None
    assert slots.acquire(key) is not None


def test_slots_of_two_keys_are_apart(store: KeyStore) -> None:
    slots = KeySlots()
    one, other = (store.create(name, max_concurrent=1).key for name in ("one", "other"))
    assert slots.acquire(one)
    assert slots.acquire(other)
    assert slots.acquire(one) is None


def test_slots_without_a_limit(store: KeyStore) -> None:
    slots = KeySlots()
    for unlimited in (None, store.create("laptop").key):
        assert all(slots.acquire(unlimited) for _ in range(1000))


def test_too_many(key: Key) -> None:
    access = too_many(key)
    assert (access.status, access.retry_after_s, access.name) == (429, 1, "laptop")
    assert "allows 2 at a time" in access.message
