"""`%llm api`: how other programs reach the models through the notebook server that runs this kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbllm.errors import InvalidRequestError

KEY_VARIABLE = "NBLLM_API_KEY"
_ALONE = "http://localhost:4891/v1"
_NO_KEY = "none"  # clients insist on one, and that server takes any
_COMMAND = "import sys; sys.path.append(sys.argv.pop(1)); from nbllm.server.command import main; sys.exit(main())"
"""`jupyter nbllm` of the very nbllm that runs here, and of no other that a folder may hold."""
_KEY_WITHIN_S = 60.0
_HEALTH_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where the API is.

    Attributes:
        base_url: for programs of this machine.
        public: for others, under a JupyterHub; "" when there is no hub.
        token: of the notebook server, which opens a shell too: it stays in this process.
    """

    base_url: str
    public: str = ""
    token: str = field(default="", repr=False, compare=False)


class Api:
    """What `%llm api` gives: a cell shows the manual, and `api = %llm api` keeps the address without a word.

    Attributes:
        base_url: for programs of this machine.
        api_key: a key that opens it: the one that was made, else the notebook's own token. It is never shown.
        model: what cells use.
    """

    def __init__(
        self, server: Server | None, model: str, key: str | None, text: str, show: Callable[[str], None]
    ) -> None:
        self.base_url = server.base_url if server else _ALONE
        self.api_key = key or (server.token if server else "") or _NO_KEY
        self.model = model
        self._text, self._show = text, show

    def __repr__(self) -> str:
        return f"<{self.base_url}, model {self.model}>"

    def _ipython_display_(self) -> None:
        self._show(self._text)


def manual(model: str, key: str | None) -> str:
    """What `%llm api` shows: the address, and ready lines for the usual clients.

    Args:
        key: to write into the lines; None writes the variable that should hold it.
    """
    server = running_server()
    base_url = server.base_url if server else _ALONE
    return "\n".join(
        [
            *_head(server),
            "",
            f"base URL   {base_url}",
            *([f"           {server.public}  (from outside of the hub)"] if server and server.public else []),
            f"key        {key or f'${KEY_VARIABLE}; %llm api --key NAME makes one'}",
            f"model      {model}",
            *_clients(server.public or base_url if server else base_url, model, key),
        ]
    )


def running_server() -> Server | None:
    """The Jupyter server that started this kernel; None when there is none, as in a terminal.

    Raises:
        InvalidRequestError: it can be reached over a Unix socket only.
    """
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "").strip("/")
    info = next(_own_servers(), {})
    url = info.get("url") or (os.environ.get("JUPYTERHUB_SERVICE_URL") if prefix else None)
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise InvalidRequestError(
            f"this notebook server listens at {url}, where OpenAI's clients cannot reach it; "
            "in a terminal, jupyter nbllm starts a server with a port"
        )
    public = (os.environ.get("JUPYTERHUB_PUBLIC_URL") or f"https://YOUR-HUB/{prefix}") if prefix else ""
    return Server(f"{url.rstrip('/')}/v1", public and f"{public.rstrip('/')}/v1", str(info.get("token", "")))


def new_key(name: str) -> str:
    """Make a key of the usual scopes. The notebook's own token would open a shell, too.

    A process of its own makes it, for keys are the server's.

    Raises:
        InvalidRequestError: the name will not do, or the keys cannot be written.
    """
    if name.startswith("-"):
        raise InvalidRequestError(f"a key's name is a word such as laptop, not {name!r}")
    command = [sys.executable, "-P", "-c", _COMMAND, str(Path(__file__).parents[2]), "keys", "create", name]
    try:
        made = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_KEY_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidRequestError(f"no key could be made: {error}") from error
    if made.returncode:
        said = made.stderr.strip().splitlines()
        raise InvalidRequestError(said[-1] if said else "no key could be made; try jupyter nbllm keys create NAME")
    return made.stdout.strip()


def _own_servers() -> Iterator[dict[str, Any]]:
    """What is on record of the servers that this process is a child of."""
    from jupyter_server.serverapp import list_running_servers

    parents = {os.getppid(), int(text) if (text := os.environ.get("JPY_PARENT_PID", "")).isdecimal() else -1}
    try:
        for info in list_running_servers():
            if info.get("pid") in parents:
                yield info
    except OSError:  # a file of another user, or one that is gone by now
        return


def _head(server: Server | None) -> list[str]:
    if server is None:
        return [
            "No notebook server runs this kernel. In a terminal, this starts one, which needs no key:  jupyter nbllm"
        ]
    if _answers(server.base_url) is False:
        return [
            f"The notebook server does not answer at {server.base_url}: install nbllm into its environment, restart",
            "it, and see what  jupyter nbllm doctor  says.",
        ]
    return ["The notebook server that runs this kernel answers as OpenAI's API does."]


def _answers(base_url: str) -> bool | None:
    """Whether nbllm is there; None when that cannot be told from here."""
    import json
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(f"{base_url}/health", timeout=_HEALTH_WITHIN_S) as answer:
            return bool(json.loads(answer.read(1000)) == {"status": "ok"})
    except (HTTPError, ValueError):  # another program's page
        return False
    except OSError:
        return None


def _clients(base_url: str, model: str, key: str | None) -> list[str]:
    python, imports = (repr(key), "") if key else (f'os.environ["{KEY_VARIABLE}"]', "os, ")
    shell = key or f"${KEY_VARIABLE}"
    return [
        "",
        "openai",
        f"    import {imports}openai",
        f'    client = openai.OpenAI(base_url="{base_url}", api_key={python})',
        f'    client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello"}}])',
        "",
        "LangChain",
        f"    import {imports}langchain_openai",
        f'    langchain_openai.ChatOpenAI(model="{model}", base_url="{base_url}", api_key={python})',
        f'    langchain_openai.OpenAIEmbeddings(model="{model}", base_url="{base_url}", api_key={python},',
        "                                      check_embedding_ctx_length=False)",
        "",
        "curl",
        f'    curl {base_url}/chat/completions -H "Authorization: Bearer {shell}" \\',
        f"""      -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""",
        "",
        'Editors (Continue, Zed, Cline and others): a provider of the kind "OpenAI compatible"',
        f"    base URL {base_url}    API key {shell}    model {model}",
    ]
