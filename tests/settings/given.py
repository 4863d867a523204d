"""Settings from an environment alone."""

from scheduler_api import settings
from scheduler_api.settings import Settings


def load(**environ: str) -> Settings:
    """From these variables, without the environment of the process and without .env."""
    return settings.load(environ=environ, dotenv=None)
