"""Valid values of REDIS_URL: the forms of the URL, and the options in its query."""

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

URL_FORMS: Final = (  # rediss uses TLS
    *("redis://HOST", "rediss://HOST", "unix:///PATH"),
    *("redis+cluster://HOST,HOST", "rediss+cluster://HOST,HOST"),
    *("redis+sentinel://HOST,HOST/MASTER", "rediss+sentinel://HOST,HOST/MASTER"),
)

Check = Callable[[str], object]  # takes an option's value; falsy: the value is invalid


def _pattern(pattern: str) -> Check:
    return re.compile(pattern).fullmatch


_TEXT: Final = _pattern(r".+")
_WHOLE: Final = _pattern(r"[0-9]{1,9}")
_SECONDS: Final = _pattern(r"(?=.*[1-9])[0-9]{1,5}(\.[0-9]{1,3})?")
_FLAG: Final = _pattern(r"0|1|true|false|yes|no")

# Only a part of redis-py's options: others change the type of replies or run commands twice.
_OPTIONS: Final[Mapping[str, Check]] = {
    "username": _TEXT,
    "password": _TEXT,
    "client_name": _pattern(r"[!-~]+"),
    "protocol": _pattern("2|3"),
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "health_check_interval": _WHOLE,
}
_DATABASE: Final[Mapping[str, Check]] = {"db": _WHOLE}  # not for a cluster: it has only database 0
_NETWORK: Final[Mapping[str, Check]] = {"socket_keepalive": _FLAG}  # not for unix sockets
_SENTINEL: Final[Mapping[str, Check]] = {"sentinel_username": _TEXT, "sentinel_password": _TEXT}
_ENCRYPTED: Final[Mapping[str, Check]] = {  # for rediss only
    "ssl_ca_certs": _TEXT,
    "ssl_certfile": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_cert_reqs": _pattern("none|optional|required"),
    "ssl_check_hostname": _FLAG,
    "ssl_ciphers": _TEXT,
}


def validated(text: str) -> str:
    """The URL without space around it. Raises: ValueError, which quotes no password."""
    text = text.strip()
    try:
        url = urlsplit(text)
        valid = _has_valid_form(url)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"must be one of {', '.join(URL_FORMS)}; each HOST may have a :PORT")
    _check_database(url)
    _check_options(url)
    return text


def _has_valid_form(url: SplitResult) -> bool:
    scheme, _, kind = url.scheme.partition("+")
    if url.scheme == "unix":
        return bool(url.path)
    hosts = url.netloc.rpartition("@")[2].split(",")
    addresses = [urlsplit(f"//{host}") for host in hosts]
    have_hosts = all(one.hostname and one.port != 0 for one in addresses)
    valid = {
        "": len(addresses) == 1 and "+" not in url.scheme,
        "cluster": url.path in ("", "/"),
        "sentinel": re.fullmatch(r"/[^/]+(/[0-9]*)?", url.path) is not None,
    }
    return scheme in ("redis", "rediss") and have_hosts and valid.get(kind, False)


def _check_database(url: SplitResult) -> None:
    if url.scheme in ("redis", "rediss") and not re.fullmatch(r"(/[0-9]{0,9})?", url.path):
        raise ValueError("the path after HOST must be a database number, for example /0")


def _check_options(url: SplitResult) -> None:
    known = options(url.scheme)
    for name, value in parse_qsl(url.query, keep_blank_values=True, separator="&"):
        if name not in known:
            # Not quoted: this may be a part of a password that contains a question mark.
            raise ValueError(f"unknown option after ?; valid options are {', '.join(known)}")
        if not known[name](value):
            raise ValueError(f"the option {name} has an invalid value")


def options(scheme: str) -> Mapping[str, Check]:
    """The options that a URL of this scheme may have: name → check."""
    return {
        **_OPTIONS,
        **({} if scheme.endswith("+cluster") else _DATABASE),
        **({} if scheme == "unix" else _NETWORK),
        **(_SENTINEL if scheme.endswith("+sentinel") else {}),
        **(_ENCRYPTED if scheme.startswith("rediss") else {}),
    }
