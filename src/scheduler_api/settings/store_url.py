"""What REDIS_URL may be: the forms of address, and the options in its query."""

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

FORMS: Final = (  # rediss is encrypted
    *("redis://HOST", "rediss://HOST", "unix:///PATH"),
    *("redis+cluster://HOST,HOST", "rediss+cluster://HOST,HOST"),
    *("redis+sentinel://HOST,HOST/MASTER", "rediss+sentinel://HOST,HOST/MASTER"),
)

Check = Callable[[str], object]  # of an option's value; falsy: wrong


def _pattern(pattern: str) -> Check:
    return re.compile(pattern).fullmatch


_TEXT: Final = _pattern(r".+")
_WHOLE: Final = _pattern(r"[0-9]{1,9}")
_SECONDS: Final = _pattern(r"(?=.*[1-9])[0-9]{1,5}(\.[0-9]{1,3})?")
_FLAG: Final = _pattern(r"0|1|true|false|yes|no")

# Not every option that redis-py has: some would change what we read or have commands run twice.
_OPTIONS: Final[Mapping[str, Check]] = {
    "username": _TEXT,
    "password": _TEXT,
    "client_name": _pattern(r"[!-~]+"),
    "protocol": _pattern("2|3"),
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "health_check_interval": _WHOLE,
}
_DATABASE: Final[Mapping[str, Check]] = {"db": _WHOLE}  # of all but a cluster, which has one
_NETWORK: Final[Mapping[str, Check]] = {"socket_keepalive": _FLAG}  # of all but unix
_SENTINEL: Final[Mapping[str, Check]] = {"sentinel_username": _TEXT, "sentinel_password": _TEXT}
_ENCRYPTED: Final[Mapping[str, Check]] = {  # of rediss
    "ssl_ca_certs": _TEXT,
    "ssl_certfile": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_cert_reqs": _pattern("none|optional|required"),
    "ssl_check_hostname": _FLAG,
    "ssl_ciphers": _TEXT,
}


def checked(text: str) -> str:
    """The address without space around it. Raises: ValueError, which quotes no login."""
    text = text.strip()
    try:
        url = urlsplit(text)
        good = _names_a_store(url)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"give {', '.join(FORMS)}, each HOST with its :PORT if need be")
    _check_database(url)
    _check_options(url)
    return text


def _names_a_store(url: SplitResult) -> bool:
    scheme, _, kind = url.scheme.partition("+")
    if url.scheme == "unix":
        return bool(url.path)
    hosts = url.netloc.rpartition("@")[2].split(",")
    places = [urlsplit(f"//{host}") for host in hosts]
    named = all(place.hostname and place.port != 0 for place in places)
    right = {
        "": len(places) == 1 and "+" not in url.scheme,
        "cluster": url.path in ("", "/"),
        "sentinel": re.fullmatch(r"/[^/]+(/[0-9]*)?", url.path) is not None,
    }
    return scheme in ("redis", "rediss") and named and right.get(kind, False)


def _check_database(url: SplitResult) -> None:
    if url.scheme in ("redis", "rediss") and not re.fullmatch(r"(/[0-9]{0,9})?", url.path):
        raise ValueError("the path after HOST is the number of a database, such as /0")


def _check_options(url: SplitResult) -> None:
    known = options(url.scheme)
    for name, value in parse_qsl(url.query, keep_blank_values=True, separator="&"):
        if name not in known:
            # Neither is quoted: a password with a question mark in it may be what stands there.
            raise ValueError(f"the options after ? that this kind has are {', '.join(known)}")
        if not known[name](value):
            raise ValueError(f"its option {name} has a wrong value")


def options(scheme: str) -> Mapping[str, Check]:
    """Those that an address of that scheme may have."""
    return {
        **_OPTIONS,
        **({} if scheme.endswith("+cluster") else _DATABASE),
        **({} if scheme == "unix" else _NETWORK),
        **(_SENTINEL if scheme.endswith("+sentinel") else {}),
        **(_ENCRYPTED if scheme.startswith("rediss") else {}),
    }
