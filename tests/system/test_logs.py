"""The log has no secret of a caller, even at DEBUG."""

import base64
import json
from pathlib import Path

from tests.support.receiver import Receiver
from tests.system.processes import free_port, serving, started

CANARY = "canary7f3a9c"
SECRET = "whsec_" + base64.b64encode(f"{CANARY}-signing-secret-0000".encode()).decode()


async def test_log_has_no_secret_and_every_line_is_json(tmp_path: Path, receiver: Receiver) -> None:
    token = f"{CANARY}-token"
    async with serving(
        tmp_path, API_TOKEN=token, SIGNING_SECRET=SECRET, LOG_LEVEL="DEBUG"
    ) as server:
        refusing = f"http://127.0.0.1:{free_port()}/hook"
        for message_id, url in {"good": receiver.url, "bad": refusing}.items():
            body = {
                "id": message_id,
                "webhookUrl": f"{url}?key={CANARY}-query",
                "headers": {"Authorization": f"Bearer {CANARY}-header"},
                "payload": {"secret": f"{CANARY}-payload"},
            }
            assert (await server.ask("POST", "/messages", body, token))[0] == 201
            wrong = body | {"delay": f"{CANARY}-delay", "id": f"{message_id}/"}
            assert (await server.ask("POST", "/messages", wrong, token))[0] == 422
        assert (await server.ask("GET", "/messages", token=f"{CANARY}-guess"))[0] == 401
        assert (await server.event("message_delivered"))["message_id"] == "good"
        failed = await server.event("attempt_failed")
        assert failed["message_id"] == "bad"
        assert failed["error"] == "connect_error"
        assert await server.stop() == 0

    encoded = SECRET.removeprefix("whsec_")
    for line in server.logged() + server.printed():
        assert CANARY not in line
        assert encoded not in line
    for line in server.logged():
        assert {"timestamp", "level", "event"} <= json.loads(line).keys()


async def test_log_warns_about_a_token_in_quotes_at_startup(tmp_path: Path) -> None:
    """docker --env-file keeps the quotes, so every caller's token would be wrong."""
    async with started(tmp_path, API_TOKEN='"abc"') as server:
        event = await server.event("setting_quoted")
        assert (event["level"], event["setting"]) == ("warning", "API_TOKEN")
        assert "abc" not in "".join(server.logged())
