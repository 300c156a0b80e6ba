"""The command `jupyter nbllm`.

Exit codes: 0 done, 1 refused, failed or something is wrong, 2 not a command.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest

from nbllm.errors import NbllmError

_HELP = """\
usage: jupyter nbllm [OPTIONS]
       jupyter nbllm COMMAND [OPTIONS]

Serve this machine's language models as OpenAI's and Ollama's API, without
notebooks.

commands:
  keys create|list|revoke     API keys, for other machines and pages
  models, list                the models that can be asked for
  show NAME                   what is known of a model; --modelfile
  pull [NAME]                 get a model; without a name, what fits here
  tune NAME                   measure what makes it fast here, and keep that
  create NAME -f MODELFILE    make a model of your own; or from=MODEL ...
  cp SOURCE DESTINATION       give a model another name, without its bytes
  rm NAME                     remove a model, and say what that frees
  status                      what runs: loaded models, and servers
  doctor                      what of this installation works, and what to do

options:
  --port N                    where to listen (4891; 0 is any free port)
  --ip ADDRESS                who may reach it (localhost); 0.0.0.0: all
  --model NAME                what answers to the model name "default"
  --context-length N          tokens that one conversation may have
  --max-sequences N           requests that run side by side in one model
  --keep-alive TIME           how long an idle model stays: 300, 5m, -1 (always)
  --no-keys                   let this machine's programs pull and delete models
  --certfile, --keyfile FILE  serve https
  --debug                     log more
  --help-all                  every option (a file: jupyter_nbllm_config.py)

variables:
  OLLAMA_HOST                 where to listen, without --ip and --port
  OLLAMA_BASIC_AUTH           user:password, which everybody is asked for

examples:
  jupyter nbllm
  jupyter nbllm --port 11434       (Ollama's; its API is there as well)
  jupyter nbllm --port 8080 --model path/to/model.gguf
  jupyter nbllm --NbllmApp.max_loaded_models=1
  KEY=$(jupyter nbllm keys create laptop) && jupyter nbllm --ip 0.0.0.0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words after `jupyter nbllm` say."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and not words[0].startswith("-"):
            return _command(words[0], words[1:])
        if {"-h", "--help"} & set(words):
            sys.stdout.write(_HELP)
            return 0
        return _serve(words)
    except NbllmError as exc:
        return _failed(str(exc), 1)
    except KeyboardInterrupt:
        return 130


def _command(name: str, words: Sequence[str]) -> int:
    command = _COMMANDS.get(name)
    if command is None:
        close = difflib.get_close_matches(name, _COMMANDS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(_COMMANDS)}"
        return _failed(f"{name[:40]!r} is not a command; {hint}", 2)
    return command(words)


def _serve(words: Sequence[str]) -> int:
    from traitlets import TraitError

    # jsonschema checks IRIs with it if it is there, which nothing here needs; its grammar takes seconds to build.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: it cannot be imported
    from nbllm.server.extension import NbllmApp

    if problem := _unknown_option(words) or _wrong_number(words):
        return _failed(problem, 2)
    try:
        NbllmApp.launch_instance(list(words))  # type: ignore[no-untyped-call]
    except TraitError as exc:
        return _failed(str(exc), 1)
    return 0


def _unknown_option(words: Sequence[str]) -> str:
    """What is wrong with an option's name, "" if nothing is. Jupyter would go on without the option."""
    from jupyter_server import serverapp

    from nbllm.server.extension import NbllmApp

    short = {"help-all", "version"}
    for table in (serverapp.aliases, serverapp.flags, NbllmApp.aliases, NbllmApp.flags):
        short.update(name for names in table for name in ((names,) if isinstance(names, str) else names))
    settings = {f"NbllmApp.{name}" for name in NbllmApp.class_trait_names(config=True)}
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        known = settings if name.startswith("NbllmApp.") else short
        is_jupyters = "." in name and known is short
        if word.startswith("--") and name and name not in known and not is_jupyters:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{close[0]}?" if close else "see  jupyter nbllm --help"
            return f"--{name[:80]} is not an option; {hint}"
    return ""


def _wrong_number(words: Sequence[str]) -> str:
    """What is wrong with an option's number, "" if nothing is. Jupyter would say it in a traceback's words."""
    from jupyter_server import serverapp
    from traitlets import Float, Int, TraitError

    from nbllm.server.extension import NbllmApp

    settings = {**serverapp.aliases, **NbllmApp.aliases}
    traits = {
        f"{owner.__name__.replace('ModelServer', 'ServerApp')}.{name}": trait
        for owner in (NbllmApp.serverapp_class, NbllmApp)
        for name, trait in owner.class_traits(config=True).items()
    }
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.removeprefix("--").partition("=")
        trait = traits.get(settings.get(name, name)) if word.startswith("--") else None
        value = value if equals else following
        if isinstance(trait, Int | Float):
            try:
                trait.from_string(value)
            except (ValueError, TraitError):
                kind = "a number" if isinstance(trait, Float) else "a whole number"
                return f"--{name} must be {kind}, not {value[:40]!r}"
    return ""


def _keys(words: Sequence[str]) -> int:
    from nbllm.config import load_config
    from nbllm.server import keys_cli

    return keys_cli.main(words, load_config().keys_file)


def _models(words: Sequence[str]) -> int:
    from nbllm.config import load_config
    from nbllm.server import status

    as_json = _wants_json("models", "The models that can be asked for.", words)
    found = status.models(load_config())
    return _said(status.json_text(found) if as_json else status.models_text(found))


def _pull(words: Sequence[str]) -> int:
    from nbllm.config import load_config
    from nbllm.store.foreign import total_memory
    from nbllm.store.pulling.typed import pull_typed, suggestions

    parser = argparse.ArgumentParser(
        prog="jupyter nbllm pull", description="Get a model, from the Hugging Face hub or Ollama's registry."
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="hf:org/repo, hf:org/repo:Q4_K_M or smollm2:135m")
    name = parser.parse_args(words).name
    config, memory = load_config(), total_memory()
    if name is None:
        return _said(f"{suggestions(config, memory)}\n\nTo get one:  jupyter nbllm pull NAME\n")
    return _said(pull_typed(name, config=config, memory_bytes=memory, file=sys.stderr) + "\n")


def _tune(words: Sequence[str]) -> int:
    from nbllm.server import tune_cli

    return tune_cli.main(words)


def _on_model(command: str, words: Sequence[str]) -> int:
    from nbllm.server import models_cli

    return models_cli.COMMANDS[command](words)


def _status(words: Sequence[str]) -> int:
    from nbllm.config import load_config
    from nbllm.server import status

    as_json = _wants_json("status", "The models that are loaded and the servers that run.", words)
    engines, servers = status.engines(load_config().runtime_dir), status.servers()
    if as_json:
        return _said(status.json_text({"engines": engines, "servers": servers}))
    return _said(f"{status.engines_text(engines)}\n{status.servers_text(servers)}")


def _doctor(words: Sequence[str]) -> int:
    from nbllm.server import doctor, status

    as_json = _wants_json("doctor", "What of this installation works, and what to do about the rest.", words)
    found = list(doctor.findings())
    _said(status.json_text(found) if as_json else doctor.text(found))
    return int(any(finding.level == "problem" for finding in found))


_COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "keys": _keys,
    "models": _models,
    "list": _models,
    "show": partial(_on_model, "show"),
    "pull": _pull,
    "tune": _tune,
    "create": partial(_on_model, "create"),
    "cp": partial(_on_model, "cp"),
    "rm": partial(_on_model, "rm"),
    "status": _status,
    "doctor": _doctor,
}


def _wants_json(command: str, description: str, words: Sequence[str]) -> bool:
    parser = argparse.ArgumentParser(prog=f"jupyter nbllm {command}", description=description)
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    return bool(parser.parse_args(words).json)


def _said(text: str) -> int:
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0


def _failed(message: str, code: int) -> int:
    sys.stderr.write(f"jupyter nbllm: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
