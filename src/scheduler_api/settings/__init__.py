"""All settings, one field each, and `load`, which makes them from text."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from scheduler_api.domain import signing
from scheduler_api.domain.egress import EgressRules
from scheduler_api.settings import egress_options, kinds, store_url
from scheduler_api.settings.kinds import Kind
from scheduler_api.settings.sources import Found, SettingsError, find

__all__ = ["Settings", "SettingsError", "describe", "example", "load"]

Text = Annotated[str, Kind(str)]
Directory = Annotated[Path, Kind(Path, kinds.show_directory)]
Egress = Annotated[EgressRules, Kind(EgressRules.parse, kinds.show_egress)]


def _variable(field: str) -> str:
    return "SIGNING_SECRET" if field == "signing_secrets" else field.upper()


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """All settings; a field is set by the variable of the same name in capitals."""

    api_host: Annotated[Text, "Address to listen on"] = "0.0.0.0"
    api_port: Annotated[int, kinds.port(0), "Port to listen on; 0 picks a free port"] = 8000
    root_path: Annotated[
        str,
        Kind(kinds.path_prefix),
        "URL path prefix behind a reverse proxy, for example /scheduler",
    ] = ""
    api_token: Annotated[
        str,
        Kind(kinds.token, secret=True),
        "Token that callers must send; if empty, one is generated at first start "
        "and saved in DATA_DIR/token",
    ] = ""
    redis_url: Annotated[
        str,
        Kind(store_url.validated, secret=True),
        "URL of an external Redis: redis://, rediss://, unix://, "
        "redis+cluster:// or redis+sentinel://",
    ] = ""
    redis_host: Annotated[
        Text,
        "Host of an external Redis; if neither this nor REDIS_URL is set, "
        "the embedded store is used",
    ] = ""
    redis_port: Annotated[int, kinds.port(1), "Port of the Redis at REDIS_HOST"] = 6379
    redis_password: Annotated[
        str, Kind(str, secret=True), "Password of the Redis at REDIS_HOST"
    ] = ""
    redis_prefix: Annotated[str, Kind(kinds.key_prefix), "Prefix of every key in the store"] = (
        "scheduler"
    )
    partitions: Annotated[
        int,
        kinds.whole_number(1, 256),
        "Number of parts that the data is divided into; cannot be changed later."
        " Use 16 or more on Redis Cluster",
    ] = 1
    durability: Annotated[
        str,
        kinds.one_of("store", "replica"),
        "When to answer 201: store = written to the store; replica = also confirmed by a replica",
    ] = "store"
    strict: Annotated[
        bool,
        kinds.flag(),
        "Whether to refuse to start (1) if the store may lose messages",
    ] = False
    data_dir: Annotated[
        Directory,
        "Local directory for the embedded store, the generated token "
        "and the lock files of processes",
    ] = Path("./data")
    log_level: Annotated[
        str,
        kinds.one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "Minimum log level: DEBUG, INFO, WARNING or ERROR",
    ] = "INFO"
    log_format: Annotated[
        str,
        kinds.one_of("auto", "json", "console"),
        "Log format: json, console, or auto (console on a terminal, else json)",
    ] = "auto"
    request_timeout: Annotated[
        timedelta,
        kinds.duration("1s", "15m"),
        "Default timeout of one delivery attempt, 1s to 15m; a message can set its own",
    ] = timedelta(seconds=30)
    max_in_flight: Annotated[
        int,
        kinds.whole_number(1, 10_000),
        "Maximum number of open webhook requests per process",
    ] = 256
    destination_concurrency: Annotated[
        int,
        kinds.whole_number(1, 1_000),
        "Maximum number of open webhook requests per destination host, across all replicas",
    ] = 64
    lease: Annotated[
        timedelta,
        kinds.duration("1s", "1h"),
        "Time after which another process takes over messages of a dead process",
    ] = timedelta(seconds=15)
    egress_allow: Annotated[
        Egress,
        "Private addresses that webhooks may reach: networks, hosts, or the word private",
    ] = EgressRules()
    egress_proxy: Annotated[
        str,
        Kind(egress_options.validated_proxy, secret=True),
        "HTTP proxy for all webhook requests: http://USER:PASSWORD@HOST:PORT",
    ] = ""
    egress_ca_file: Annotated[
        Path | None,
        Kind(egress_options.validated_ca_file, lambda file: str(file or "")),
        "PEM file of additional certificate authorities for webhook receivers",
    ] = None
    signing_secrets: Annotated[
        tuple[bytes, ...],
        Kind(signing.parse_secrets, secret=True),
        "Secret that signs webhooks: whsec_…; for rotation, several separated by spaces",
    ] = ()
    keep_delivered: Annotated[
        timedelta,
        kinds.duration("0s", "3650d"),
        "Retention time of delivered messages; 0 deletes them at once",
    ] = timedelta(days=1)
    keep_failed: Annotated[
        timedelta,
        kinds.duration("0s", "3650d"),
        "Retention time of failed messages; 0 deletes them at once",
    ] = timedelta(days=30)
    default_timezone: Annotated[
        str,
        Kind(kinds.time_zone),
        "IANA time zone of local times that have no zone",
    ] = "UTC"
    max_body: Annotated[
        int,
        kinds.size("1KiB", "64MiB"),
        "Maximum size of an API request body, 1KiB to 64MiB",
    ] = 1024**2
    max_memory: Annotated[
        int,
        kinds.optional_size("64MiB", "4096GiB"),
        "Memory limit of all processes and the embedded store together; "
        "if empty, 3/4 of the memory of the machine or container",
    ] = 0
    workers: Annotated[int, kinds.whole_number(1, 64), "Number of worker processes"] = 1
    shutdown_grace: Annotated[
        timedelta,
        kinds.duration("0s", "1h"),
        "Maximum time for open webhook requests to finish after SIGTERM",
    ] = timedelta(seconds=25)

    @property
    def redis_address(self) -> str | None:
        """The URL of the external store; None: use the embedded store."""
        if self.redis_url or not self.redis_host:
            return self.redis_url or None
        login = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{login}{host}:{self.redis_port}/0"

    def quoted_variables(self) -> list[str]:
        """Variables whose text begins and ends with a quote, as docker --env-file leaves them."""
        texts = {it.variable: getattr(self, it.field) for it in DEFINITIONS}
        return [
            variable
            for variable, text in texts.items()
            if isinstance(text, str | Path) and re.fullmatch(r"(['\"]).*\1", str(text), re.DOTALL)
        ]

    def redacted(self) -> dict[str, str]:
        """Every variable as text; secrets as stars."""
        return {it.variable: it.show(getattr(self, it.field)) for it in DEFINITIONS}

    def __repr__(self) -> str:
        return (
            f"Settings({', '.join(f'{name}={text!r}' for name, text in self.redacted().items())})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self.redacted().items())


class Description(NamedTuple):
    """A setting as documents show it."""

    name: str  # the variable
    default: str  # as text; empty: none
    meaning: str  # a noun phrase


class _Definition(NamedTuple):
    """The annotations of a field of Settings, as an object."""

    field: str
    variable: str
    default: Any
    kind: Kind
    meaning: str

    def show(self, value: Any) -> str:
        if self.kind.secret:
            return "***" if value else ""
        return self.kind.show(value)

    def read(self, text: str) -> Any:
        try:
            return self.kind.read(text if self.kind.secret else text.strip())
        except ValueError as error:
            given = "is invalid" if self.kind.secret else f"is {text!r}"
            raise SettingsError(f"{self.variable} {given}: {error}") from None


def _definitions() -> Iterator[_Definition]:
    for info in msgspec.structs.fields(Settings):
        notes = info.type.__metadata__
        kind = next(note for note in notes if isinstance(note, Kind))
        meaning = next(note for note in notes if isinstance(note, str))
        yield _Definition(info.name, info.encode_name, info.default, kind, meaning)


DEFINITIONS: Final = tuple(_definitions())


def describe() -> list[Description]:
    """Every setting, in order: the source of --help, the README's table and .env.example."""
    return [Description(it.variable, it.show(it.default), it.meaning) for it in DEFINITIONS]


def example() -> str:
    """The text of .env.example: every setting with its default, commented out."""
    head = (
        "# Copy this file to .env and change what you need.\n"
        "# To read a setting NAME from a file, set NAME_FILE to the path of the file.\n"
    )
    return head + "".join(f"\n# {it.meaning}\n#{it.name}={it.default}\n" for it in describe())


def load(
    flags: Mapping[str, str] = {},
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
) -> Settings:
    """Flags (by variable), then environment, then .env, then defaults. Raises: SettingsError.

    `environ` None: the environment of this process.
    """
    found = find((it.variable for it in DEFINITIONS), flags, environ, dotenv)
    _remove_unused(found)
    given = {
        it.field: it.read(found[it.variable].text) for it in DEFINITIONS if it.variable in found
    }
    settings = Settings(**given)
    if settings.redis_password and not (settings.redis_host or settings.redis_url):
        raise SettingsError("REDIS_PASSWORD is set without REDIS_HOST: set both or none")
    if settings.durability == "replica" and "+cluster:" in settings.redis_url:
        raise SettingsError("DURABILITY is 'replica': not supported on Redis Cluster; use store")
    return settings


def _remove_unused(found: dict[str, Found]) -> None:
    """Of REDIS_URL and REDIS_HOST, keep that of the earlier source; without a host, no port."""
    url, host = found.get("REDIS_URL"), found.get("REDIS_HOST")
    if url and host and host.source < url.source:
        del found["REDIS_URL"]
    if "REDIS_URL" in found or not host:
        found.pop("REDIS_PORT", None)
