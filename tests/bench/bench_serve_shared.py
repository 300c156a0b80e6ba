"""Bar 6 of the server: a kernel and 4 HTTP clients on the kernel's own engine, against 5 HTTP clients on a runner.

One batch, one copy of the weights, and together at least 0.95x the tokens a second. The kernel here is this process,
which serves its engine and leaves a record as a kernel does.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

import nbllm
from tests.bench import engine, serving, sides

_NEW = 4 if serving.SMOKE else 64
_ROUNDS = 1 if serving.SMOKE else 4


def _runner() -> dict[str, float]:
    with serving.nbllm("--NbllmApp.max_sequences=8") as server:
        serving.warmed(server)
        started = time.perf_counter()
        made = asyncio.run(_asked(server, 5))
        elapsed = time.perf_counter() - started
        children = psutil.Process(server.pid).children(recursive=True)
        return {"tokens_per_s": made / elapsed, "runners": len(children)}


async def _asked(server: serving.Server, width: int) -> int:
    texts = serving.prompts(width * _ROUNDS)
    found = await serving.clients(width, texts, lambda text: serving.stream(server, server.body(text, _NEW)))
    assert all(one.num_tokens == _NEW for one in found), found
    return sum(one.num_tokens for one in found)


def _kernel() -> dict[str, float]:
    from nbllm.runner import records
    from nbllm.runner.host import EngineHost
    from nbllm.runner.listener import listen
    from nbllm.store.hashes import model_hash
    from tests.bench.raw import smollm2

    model = engine.load(max_sequences=8)
    with tempfile.TemporaryDirectory() as name:
        folder, token = Path(name) / "run", secrets.token_hex(16)
        host = EngineHost(model.engine, listen(folder), token)
        host.start()
        record = records.new_record(
            "kernel", model.engine.info, address=host.address, token=token, file_hash=model_hash(smollm2())
        )
        path = records.write(folder, record)
        trusted = ("--NbllmApp.runtime_dir=" + str(folder), "--IdentityProvider.token=" + token)
        with serving.nbllm("--NbllmApp.max_sequences=8", *trusted) as plain:
            server = serving.Server(plain.port, plain.pid, plain.model, {"Authorization": f"Bearer {token}"})
            serving.warmed(server)
            figures = _together(server, model)
        records.remove(path)
        host.close()
    return figures


def _together(server: serving.Server, model: nbllm.Model) -> dict[str, float]:
    own: list[int] = []

    def in_the_kernel() -> None:
        for text in engine.prompts(_ROUNDS):
            own.append(model.chat(text, **engine.endless(model, _NEW)).usage.completion_tokens)

    cell = threading.Thread(target=in_the_kernel)
    started = time.perf_counter()
    cell.start()
    made = asyncio.run(_asked(server, 4))
    cell.join()
    elapsed = time.perf_counter() - started
    return {
        "tokens_per_s": (made + sum(own)) / elapsed,
        "runners": len(psutil.Process(server.pid).children(recursive=True)),
    }


if __name__ == "__main__":
    sides.main(
        __file__,
        {"runner": _runner, "kernel": _kernel},
        ratios={"6 kernel/runner (bar 0.95)": ("tokens_per_s", "kernel", "runner")},
    )
