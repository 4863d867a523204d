"""The API token: that of API_TOKEN, or one generated at the first start and saved in DATA_DIR."""

import os
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple

from scheduler_api.settings import Settings, SettingsError


class Token(NamedTuple):
    """The token that callers must send."""

    value: str
    created: bool  # generated just now, by this process


def path(settings: Settings) -> Path:
    """The file of a generated token."""
    return settings.data_dir / "token"


def load_token(settings: Settings) -> Token:
    """The token, never empty. Raises: SettingsError, if the file is empty or cannot be used."""
    if settings.api_token.strip():
        return Token(settings.api_token.strip(), created=False)
    file = path(settings)
    try:
        created = not file.exists() and _generate(file)
        return Token(_read(file), created)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"API_TOKEN is not set and {file} cannot be used ({error}): "
            "set API_TOKEN, or set DATA_DIR to a directory that this user can write"
        ) from None


def _read(file: Path) -> str:
    value = file.read_text("utf-8").strip()
    if not value:
        raise SettingsError(f"{file} is empty: delete it to get a new token, or set API_TOKEN")
    return value


def _generate(file: Path) -> bool:
    """Create the file, complete or not at all; False if another process was faster."""
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
