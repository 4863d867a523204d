"""What can be set, and the only reader of the environment. Asked for by cli and server."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Meta

from scheduler_api.domain import signing
from scheduler_api.domain.duration import parse_duration
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.time_zone import time_zone
from scheduler_api.settings import egress_options, store_url

SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3} | {  # unit → bytes
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
SPANS = (("d", 86_400), ("h", 3_600), ("m", 60))  # unit, seconds; longest first


class SettingsError(ValueError):
    """A setting is wrong; the text names the variable and what would be right."""


class Kind(NamedTuple):
    """How a setting is read from text, and shown as text again."""

    read: Callable[[str], Any]  # raises ValueError with a sentence that says what would be right
    show: Callable[[Any], str] = str
    secret: bool = False  # never quoted, never shown


def _whole(low: int, high: int) -> Kind:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return Kind(read)


def _port(low: int) -> Kind:
    number = _whole(low, 65_535)

    def read(text: str) -> int:
        if text.startswith("tcp://"):
            raise ValueError(
                "Kubernetes sets it beside a Service of that name; set the port in the Pod, or "
                "enableServiceLinks: false"
            )
        return int(number.read(text))

    return Kind(read)


def _flag() -> Kind:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

    def read(text: str) -> bool:
        if text.lower() not in words:
            raise ValueError("give 1 or 0")
        return words[text.lower()]

    return Kind(read, lambda value: str(int(value)))


def _one_of(*words: str) -> Kind:
    def read(text: str) -> str:
        for word in words:
            if word.lower() == text.lower():
                return word
        raise ValueError(f"give one of {', '.join(words)}")

    return Kind(read)


def _span(low: str, high: str) -> Kind:
    shortest, longest = parse_duration(low), parse_duration(high)

    def read(text: str) -> timedelta:
        span = parse_duration(text)
        if not shortest <= span <= longest:
            raise ValueError(f"give a duration from {low} to {high}")
        return span

    return Kind(read, _spell_span)


def _size(low: str, high: str) -> Kind:
    def read(text: str) -> int:
        size = _bytes(text)
        if size is None or not (_bytes(low) or 0) <= size <= (_bytes(high) or 0):
            raise ValueError(
                f"give a size from {low} to {high}; units are KiB, MiB, GiB, KB, MB, GB"
            )
        return size

    return Kind(read, _spell_size)


def _size_or_nothing(low: str, high: str) -> Kind:
    size = _size(low, high)
    return Kind(size.read, lambda value: size.show(value) if value else "")


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,12}) ?([a-z]*)", text.lower())
    unit = SIZES.get(match[2]) if match else None
    return int(match[1]) * unit if match and unit else None


def _spell_span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, length in SPANS:
        if seconds and not seconds % length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def _spell_size(size: int) -> str:
    for unit, length in (("GiB", SIZES["gib"]), ("MiB", SIZES["mib"]), ("KiB", SIZES["kib"])):
        if not size % length:
            return f"{size // length}{unit}"
    return str(size)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("give 1 to 64 letters, digits, '_', '.' or '-'")
    return text


def _path_prefix(text: str) -> str:
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise ValueError("give a path that begins with a slash, such as /scheduler")
    return path


def _zone(text: str) -> str:
    time_zone(text)
    return text


def _token(text: str) -> str:
    if not text.strip().isprintable():
        raise ValueError("give one line of printable characters")
    return text.strip()


def _spell_folder(folder: Path) -> str:
    return str(folder) if folder.is_absolute() else f"./{folder}"


def _spell_egress(rules: EgressRules) -> str:
    return "" if rules == EgressRules() else repr(rules)


def _variable(field: str) -> str:
    return "SIGNING_SECRET" if field == "signing_secrets" else field.upper()


Text = Annotated[str, Kind(str)]
Folder = Annotated[Path, Kind(Path, _spell_folder)]
Egress = Annotated[EgressRules, Kind(EgressRules.parse, _spell_egress)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=_variable):
    """Everything that can be set; a field is the variable of the same name in capitals."""

    api_host: Annotated[Text, Meta(description="Address to listen on")] = "0.0.0.0"
    api_port: Annotated[
        int, _port(0), Meta(description="Port to listen on; 0 takes a free one")
    ] = 8000
    root_path: Annotated[
        str,
        Kind(_path_prefix),
        Meta(description="Path prefix of a proxy before it, such as /scheduler"),
    ] = ""
    api_token: Annotated[
        str,
        Kind(_token, secret=True),
        Meta(description="Token of the callers; empty: made at the first start, in DATA_DIR/token"),
    ] = ""
    redis_url: Annotated[
        str,
        Kind(store_url.checked, secret=True),
        Meta(
            description="Outside store: redis://, rediss://, unix://, redis+cluster://, redis+sentinel://"
        ),
    ] = ""
    redis_host: Annotated[
        Text, Meta(description="Outside store by name; with no REDIS_URL either: the embedded one")
    ] = ""
    redis_port: Annotated[int, _port(1), Meta(description="Port of the store at REDIS_HOST")] = 6379
    redis_password: Annotated[
        str, Kind(str, secret=True), Meta(description="Password of the store at REDIS_HOST")
    ] = ""
    redis_prefix: Annotated[
        str, Kind(_prefix), Meta(description="First part of every key in the store")
    ] = "scheduler"
    partitions: Annotated[
        int,
        _whole(1, 256),
        Meta(description="Parts of the data, fixed when they are made; 16 or more on a cluster"),
    ] = 1
    durability: Annotated[
        str,
        _one_of("store", "replica"),
        Meta(description="Who must have a message before its 201: store, or replica: that too"),
    ] = "store"
    strict: Annotated[
        bool, _flag(), Meta(description="1: do not start if the store may lose messages")
    ] = False
    data_dir: Annotated[
        Folder,
        Meta(
            description="Local folder of the embedded store, the made token, the locks of processes"
        ),
    ] = Path("./data")
    log_level: Annotated[
        str,
        _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        Meta(description="Least level that is logged: DEBUG, INFO, WARNING or ERROR"),
    ] = "INFO"
    log_format: Annotated[
        str,
        _one_of("auto", "json", "console"),
        Meta(description="json, console, or auto: console on a terminal"),
    ] = "auto"
    request_timeout: Annotated[
        timedelta,
        _span("1s", "15m"),
        Meta(description="Longest time of one attempt, 1s to 15m; a message may say its own"),
    ] = timedelta(seconds=30)
    max_in_flight: Annotated[
        int, _whole(1, 10_000), Meta(description="Requests open at once, in one process")
    ] = 256
    destination_concurrency: Annotated[
        int,
        _whole(1, 1_000),
        Meta(description="Requests open at once to one host, all replicas together"),
    ] = 64
    lease: Annotated[
        timedelta,
        _span("1s", "1h"),
        Meta(description="Time after which another replica takes over a dead one's messages"),
    ] = timedelta(seconds=15)
    egress_allow: Annotated[
        Egress,
        Meta(description="Opens private addresses: networks, hosts, or the word private"),
    ] = EgressRules()
    egress_proxy: Annotated[
        str,
        Kind(egress_options.checked_proxy, secret=True),
        Meta(description="HTTP proxy for all webhooks: http://USER:PASSWORD@HOST:PORT"),
    ] = ""
    egress_ca_file: Annotated[
        Path | None,
        Kind(egress_options.checked_ca_file, lambda file: str(file or "")),
        Meta(description="Further certificate authorities of receivers, a file in PEM form"),
    ] = None
    signing_secrets: Annotated[
        tuple[bytes, ...],
        Kind(signing.parse_secrets, secret=True),
        Meta(description="Signs what is sent: whsec_…; several, separated by spaces, to rotate"),
    ] = ()
    keep_delivered: Annotated[
        timedelta,
        _span("0s", "3650d"),
        Meta(description="How long delivered messages stay readable; 0: not at all"),
    ] = timedelta(days=1)
    keep_failed: Annotated[
        timedelta,
        _span("0s", "3650d"),
        Meta(description="How long failed messages stay readable; 0: not at all"),
    ] = timedelta(days=30)
    default_timezone: Annotated[
        str, Kind(_zone), Meta(description="IANA zone of local times that name none")
    ] = "UTC"
    max_body: Annotated[
        int,
        _size("1KiB", "64MiB"),
        Meta(description="Largest request body, 1KiB to 64MiB"),
    ] = 1024**2
    max_memory: Annotated[
        int,
        _size_or_nothing("64MiB", "4096GiB"),
        Meta(description="Memory of the processes and the embedded store; empty: 3/4 of all"),
    ] = 0
    workers: Annotated[int, _whole(1, 64), Meta(description="Processes")] = 1
    shutdown_grace: Annotated[
        timedelta,
        _span("0s", "1h"),
        Meta(description="How long open requests may go on after SIGTERM"),
    ] = timedelta(seconds=25)

    @property
    def redis_address(self) -> str | None:
        """One URL for the outside store; None: the embedded one."""
        if self.redis_url or not self.redis_host:
            return self.redis_url or None
        login = f":{quote(self.redis_password, safe='')}@" if self.redis_password else ""
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{login}{host}:{self.redis_port}/0"

    def in_quotes(self) -> list[str]:
        """Variables whose text begins and ends with a quote, which docker --env-file keeps."""
        texts = {rule.variable: getattr(self, rule.field) for rule in RULES}
        return [
            variable
            for variable, text in texts.items()
            if isinstance(text, str | Path) and re.fullmatch(r"(['\"]).*\1", str(text), re.DOTALL)
        ]

    def redacted(self) -> dict[str, str]:
        """Every variable as text; secrets as stars."""
        return {rule.variable: rule.shown(getattr(self, rule.field)) for rule in RULES}

    def __repr__(self) -> str:
        return (
            f"Settings({', '.join(f'{name}={text!r}' for name, text in self.redacted().items())})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self.redacted().items())


class Described(NamedTuple):
    """A setting as documents show it."""

    name: str  # the variable
    default: str  # as text; empty: none
    meaning: str


class _Rule(NamedTuple):
    """A setting as `load` needs it."""

    field: str
    variable: str
    default: Any
    kind: Kind
    meaning: str

    def shown(self, value: Any) -> str:
        if self.kind.secret:
            return "***" if value else ""
        return self.kind.show(value)

    def read(self, text: str) -> Any:
        try:
            return self.kind.read(text if self.kind.secret else text.strip())
        except ValueError as error:
            given = "has a wrong value" if self.kind.secret else f"is {text!r}"
            raise SettingsError(f"{self.variable} {given}: {error}") from None


class _Found(NamedTuple):
    """What a source says of a setting."""

    text: str
    source: int  # 0: flags, 1: environment, 2: .env


def _rules() -> Iterator[_Rule]:
    for info in msgspec.structs.fields(Settings):
        notes = info.type.__metadata__
        kind = next(note for note in notes if isinstance(note, Kind))
        meaning = next(str(note.description) for note in notes if isinstance(note, Meta))
        yield _Rule(info.name, info.encode_name, info.default, kind, meaning)


RULES = tuple(_rules())


def describe() -> list[Described]:
    """Every setting, in order: what --help, the README and .env.example are made from."""
    return [Described(rule.variable, rule.shown(rule.default), rule.meaning) for rule in RULES]


def example() -> str:
    """The text of .env.example: every setting, commented out, at its default."""
    head = "# Copy to .env and change what you need. Every NAME also works as NAME_FILE, a file.\n"
    return head + "".join(f"\n# {it.meaning}\n#{it.name}={it.default}\n" for it in describe())


def load(
    flags: Mapping[str, str] = {},
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
) -> Settings:
    """Flags (by variable) before environment before .env before defaults.

    Raises SettingsError. Every NAME may also come as NAME_FILE; empty text counts as not given.
    """
    sources = (flags, os.environ if environ is None else environ, _dotenv(dotenv))
    found = {rule.field: one for rule in RULES if (one := _find(rule, sources))}
    _leave_out_unused(found)
    given = {rule.field: rule.read(found[rule.field].text) for rule in RULES if rule.field in found}
    settings = Settings(**given)
    if settings.redis_password and not (settings.redis_host or settings.redis_url):
        raise SettingsError("REDIS_PASSWORD is given without REDIS_HOST: give both or none")
    if settings.durability == "replica" and "+cluster:" in settings.redis_url:
        raise SettingsError("DURABILITY is 'replica', which a Cluster cannot wait for: leave it")
    return settings


def _leave_out_unused(found: dict[str, _Found]) -> None:
    """Of REDIS_URL and REDIS_HOST, the one of the earlier source holds; without a host, no port."""
    url, host = found.get("redis_url"), found.get("redis_host")
    if url and host and host.source < url.source:
        del found["redis_url"]
    if "redis_url" in found or not host:
        found.pop("redis_port", None)


def _dotenv(path: Path | None) -> Mapping[str, str | None]:
    if path is None or not path.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415  costs 10 ms that most starts need not pay

    try:
        # Not interpolated: a token may hold "${", and os.environ has one reader.
        return dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None


def _find(rule: _Rule, sources: tuple[Mapping[str, str | None], ...]) -> _Found | None:
    for number, source in enumerate(sources):
        plain = source.get(rule.variable) or ""
        file = source.get(f"{rule.variable}_FILE") or ""
        if plain.strip() and file:
            name = rule.variable
            raise SettingsError(f"{name} and {name}_FILE are both given: give one of them")
        found = _content(rule.variable, file) if file else plain
        if found.strip():
            return _Found(found, number)
    return None


def _content(variable: str, file: str) -> str:
    try:
        return Path(file).read_text("utf-8-sig").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise SettingsError(f"{variable}_FILE is {file!r}: cannot be read ({reason})") from None
