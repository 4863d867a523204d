"""The log of a process at its start."""

import structlog

from scheduler_api.settings import Settings
from scheduler_api.telemetry.logging import configure_logging

log = structlog.get_logger()

_QUOTED = "the quotes are part of the value, because docker --env-file keeps them; remove them"


def configure_log(settings: Settings) -> None:
    """Set up the log, and warn about values in quotes."""
    configure_logging(settings.log_level, settings.log_format)
    for name in settings.quoted_variables():
        log.warning("setting_quoted", setting=name, reason=_QUOTED)
