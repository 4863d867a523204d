"""What a person reads when the server is up: where it is, its token, a first call to paste.

Asked for by server.
"""

import json
import shlex
from pathlib import Path

from scheduler_api.server import token_file
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings

ANYWHERE = ("0.0.0.0", "::")  # listened on, but nothing to dial


def address(settings: Settings) -> str:
    """The URL under which this machine reaches the server; api_port must be the real one."""
    host = "localhost" if settings.api_host in ANYWHERE else settings.api_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"


def banner(settings: Settings, token: Token, listen: int | None = None) -> str:
    """The token is shown only when it is new, or beside a receiver: then this is a try-out."""
    shown = token.created or listen is not None
    lines = [
        f"Scheduler API   {address(settings)}",
        f"Documentation   {address(settings)}/docs",
        f"Token           {_where(settings, token, shown=shown)}",
    ]
    if listen is not None:
        lines.append(f"Receiver        http://127.0.0.1:{listen}   prints what arrives, below")
    target = f"http://127.0.0.1:{listen}/hello" if listen else "https://example.com/webhook"
    call = _curl(address(settings), _header(settings, token, shown=shown), target)
    return "\n".join([*lines, "", "A message, five seconds ahead:", "", call, ""])


def _where(settings: Settings, token: Token, *, shown: bool) -> str:
    place = "set by API_TOKEN" if settings.api_token else f"kept in {_file(settings)}"
    return f"{token.value}   ({place})" if shown else place


def _file(settings: Settings) -> Path:
    return token_file.path(settings).absolute()


def _header(settings: Settings, token: Token, *, shown: bool) -> str:
    if shown:
        return shlex.quote(f"Authorization: Bearer {token.value}")
    if settings.api_token:
        return '"Authorization: Bearer $API_TOKEN"'
    return f'"Authorization: Bearer $(cat {shlex.quote(str(_file(settings)))})"'


def _curl(base: str, header: str, target: str) -> str:
    body = {"webhookUrl": target, "delay": "5s", "payload": {"hello": "world"}}
    words = (
        f"curl {shlex.quote(f'{base}/messages')}",
        f"-H {header}",
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(json.dumps(body))}",
    )
    # No space after a backslash and no comment: both would break the paste, zsh's above all.
    return " \\\n  ".join(words)
