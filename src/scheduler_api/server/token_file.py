"""The API token: the one that is set, or one made at the first start and kept in DATA_DIR.

Asked for by server, before it listens.
"""

import os
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

from scheduler_api.settings import Settings, SettingsError


class Token(NamedTuple):
    """What callers must show."""

    value: str
    created: bool  # made just now, by this process


def path(settings: Settings) -> Path:
    """Where a made token is kept."""
    return settings.data_dir / "token"


def token(settings: Settings) -> Token:
    """Never empty. Raises SettingsError when the file is empty, or cannot be read or made."""
    if settings.api_token.strip():
        return Token(settings.api_token.strip(), created=False)
    file = path(settings)
    try:
        created = not file.exists() and _make(file)
        return Token(_read(file), created)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"API_TOKEN is not set and {file} cannot be used ({error}): "
            "set API_TOKEN, or a DATA_DIR that this user may write"
        ) from None


def _read(file: Path) -> str:
    value = file.read_text("utf-8").strip()
    if not value:
        raise SettingsError(f"{file} is empty: delete it to get a new token, or set API_TOKEN")
    return value


def _make(file: Path) -> bool:
    """True if this process made it; False if another was faster. Whole or not there at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".token-", dir=file.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)
    except FileExistsError:
        return False
    else:
        return True
    finally:
        os.unlink(draft)
