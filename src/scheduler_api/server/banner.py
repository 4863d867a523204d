"""The text printed when the server is ready: its address, its token, and a first call to paste."""

import json
import shlex
from pathlib import Path

from scheduler_api.server import token_file
from scheduler_api.server.address import LOOPBACK, listens_everywhere
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings


def address(settings: Settings) -> str:
    """The URL of the server for clients on this machine; api_port must be the bound port."""
    host = "localhost" if listens_everywhere(settings.api_host) else settings.api_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"


def banner(settings: Settings, token: Token, listen: int | None = None) -> str:
    """The text; `listen`: port of a try-out receiver on this machine.

    The token is shown only if it is new, or if there is a receiver: then this is a try-out.
    """
    shown = token.created or listen is not None
    lines = [
        f"Scheduler API   {address(settings)}",
        f"Documentation   {address(settings)}/docs",
        f"Token           {_where(settings, token, shown=shown)}",
    ]
    target = "https://example.com/webhook"
    if listen is not None:
        receiver = f"http://{LOOPBACK}:{listen}"
        lines.append(f"Receiver        {receiver}   prints the webhooks that it receives")
        target = f"{receiver}/hello"
    call = _curl(address(settings), _header(settings, token, shown=shown), target)
    return "\n".join([*lines, "", "Send a webhook in 5 seconds:", "", call, ""])


def _where(settings: Settings, token: Token, *, shown: bool) -> str:
    place = "set by API_TOKEN" if settings.api_token else f"saved in {_file(settings)}"
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
    # No space after a backslash and no comment: both break the pasted call, mostly in zsh.
    return " \\\n  ".join(words)
