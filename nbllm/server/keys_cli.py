"""`jupyter nbllm keys create|list|revoke`.

Of `create`, only the secret goes to standard output, so that  `KEY=$(jupyter nbllm keys create ci)`  holds it.
Exit codes: 0 done, 1 refused or failed, 2 not a command.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from nbllm.errors import NbllmError, ParameterError
from nbllm.server.keys import Key, KeyStore
from nbllm.server.scopes import MEANINGS, USUAL_SCOPES
from nbllm.server.status import json_text

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_HEADINGS = ("ID", "NAME", "SCOPES", "MODELS", "AT A TIME", "CREATED", "EXPIRES")


def main(argv: Sequence[str], store_path: Path) -> int:
    """Do what the words after `jupyter nbllm keys` say, with the keys at `store_path`."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as exc:  # argparse has said why
        return exc.code if isinstance(exc.code, int) else 2
    store = KeyStore(store_path)
    try:
        if arguments.command == "create":
            _create(store, arguments)
        elif arguments.command == "revoke":
            _revoke(store, arguments.key)
        else:
            _list(store, as_json=arguments.json)
    except ParameterError as exc:
        return _failed(f"{_spelt(exc.param)}: {exc.problem}")
    except NbllmError as exc:
        return _failed(str(exc))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter nbllm keys", description="API keys that open this server's models and nothing else of it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="create|list|revoke")
    create = commands.add_parser(
        "create",
        help="make a key and show it, once",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="scopes:\n" + "\n".join(f"  {scope:<11} {meaning}" for scope, meaning in MEANINGS.items()),
    )
    create.add_argument("name", metavar="NAME", help="who or what the key is for, such as laptop")
    create.add_argument("--scopes", metavar="A,B", help=f"what it may do (default: {','.join(USUAL_SCOPES)})")
    create.add_argument("--models", metavar="A,B", help="the only models that it opens (default: all)")
    create.add_argument("--expires", metavar="TIME", help="after which it is void: 30d, 12h, 2w (default: never)")
    create.add_argument("--max-concurrent", metavar="N", type=int, help="requests at a time (default: no limit)")
    listing = commands.add_parser("list", help="show the keys, without their secrets")
    listing.add_argument("--json", action="store_true", help="as JSON, for programs")
    revoke = commands.add_parser("revoke", help="make a key void, at once and for ever")
    revoke.add_argument("key", metavar="ID", help="the key's id or name, or the key itself")
    return parser


def _create(store: KeyStore, arguments: argparse.Namespace) -> None:
    key, secret = store.create(
        arguments.name,
        scopes=USUAL_SCOPES if arguments.scopes is None else _words(arguments.scopes),
        models=None if arguments.models is None else _words(arguments.models),
        expires_in=None if arguments.expires is None else _age(arguments.expires),
        max_concurrent=arguments.max_concurrent,
    )
    until = f"until {_moment(key.expires)}" if key.expires else "until it is revoked"
    _say(f"The key {key.name!r} opens {', '.join(key.scopes)} {until}. Keep it safe: it is shown this once.")
    _flush_out(secret + "\n")
    _say(f"To make it void:  jupyter nbllm keys revoke {key.id}")


def _list(store: KeyStore, *, as_json: bool) -> None:
    keys = store.list()
    if as_json:
        _flush_out(json_text([_public(key) for key in keys]))
        return
    if not keys:
        _say("There are no keys; make one with  jupyter nbllm keys create NAME")
        return
    now = datetime.now(UTC)
    rows = [_HEADINGS, *(_row(key, now) for key in keys)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    _flush_out("\n".join(lines) + "\n")


def _revoke(store: KeyStore, id_or_name: str) -> None:
    key = store.revoke(id_or_name)
    _say(f"The key {key.name!r} ({key.id}) opens nothing any more.")


def _public(key: Key) -> dict[str, object]:
    """Without the hash, which is nobody's business."""
    return {name: value for name, value in msgspec.structs.asdict(key).items() if name != "sha256"}


def _row(key: Key, now: datetime) -> tuple[str, ...]:
    expires = _moment(key.expires) if key.expires else "never"
    return (
        key.id,
        key.name,
        ",".join(key.scopes),
        "all" if key.models is None else ",".join(key.models),
        str(key.max_concurrent or "any"),
        _moment(key.created),
        f"{expires} (expired)" if key.is_expired(now) else expires,
    )


def _words(text: str) -> Iterable[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _age(text: str) -> timedelta:
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ParameterError("expires", f"must be a number and m, h, d or w, such as 30d, not {text[:40]!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _spelt(param: str) -> str:
    return "NAME" if param == "name" else "--" + param.replace("_", "-")


def _failed(message: str) -> int:
    _say(f"jupyter nbllm keys: {message}")
    return 1


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _flush_out(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
