"""International URLs and hosts to ASCII: IDNA for hosts, percent-encoding for path and query.

domain/url.py checks the result like any other URL. Labels in xn-- form are kept as given.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import idna

_INTERNATIONAL_URL: Final = re.compile(r"([A-Za-z]+://)([^/?#]*)(.*)", re.DOTALL)
_HOST_AND_PORT: Final = re.compile(r"([^:@\[\]\\]*)((?::[0-9]*)?)", re.ASCII)
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_MAX_LABEL: Final = 63  # characters between two dots of a host
_OTHER_DOTS: Final = re.compile("[\u3002\uff0e\uff61]")
# Unicode categories that a URL must not have: controls, surrogates, line ends, spaces.
_FORBIDDEN_CATEGORIES: Final = frozenset(("Cc", "Cs", "Zl", "Zp", "Zs"))
# Scripts whose letters look alike; a label must not mix two of them. In Unicode, the name of a
# letter begins with its script.
_LOOK_ALIKE: Final = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE")


def ascii_url(text: str) -> str:
    """The URL in ASCII; other text is returned unchanged. Raises: ValueError."""
    found = None if text.isascii() else _INTERNATIONAL_URL.fullmatch(text)
    if found is None:
        return text
    return found[1] + ascii_host(found[2]) + _NOT_ASCII.sub(_percent_encoded, found[3])


def ascii_host(text: str) -> str:
    """A host or host:port in ASCII. Raises: ValueError, also for what looks like another host."""
    if text.isascii():
        return text
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        raise ValueError("use host or host:port without a user name, and digits for the port")
    if _OTHER_DOTS.search(found[1]):
        raise ValueError("separate the parts of a host by full stops: .")
    return ".".join(map(_ascii_label, found[1].split("."))) + found[2]


def _percent_encoded(found: re.Match[str]) -> str:
    for character in found[0]:
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
            raise ValueError(
                f"a URL must not have the character U+{ord(character):04X}: "
                "percent-encode or remove it"
            )
    return quote(found[0])


# Most messages go to few hosts.
@lru_cache(maxsize=1024)
def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    if len(label) > _MAX_LABEL:  # idna is slow for long text
        raise ValueError(f"a part of a host must have at most {_MAX_LABEL} characters")
    try:
        mapped = idna.uts46_remap(label)
        encoded = idna.alabel(mapped).decode()
    except idna.IDNAError as error:
        reason = str(error).encode("ascii", "backslashreplace").decode()
        raise ValueError(
            f"{label[:64]!a} cannot be part of a host ({reason[:200]}): correct it, "
            "or use its xn-- form if it exists"
        ) from None
    # Readers of a URL do not know the other mappings, for example of full-width letters.
    if mapped.isascii() or mapped != unicodedata.normalize("NFC", label.lower()):
        raise ValueError(f"{label[:64]!a} in a host means {encoded}: write {encoded}")
    if len(_scripts(mapped)) > 1:
        raise ValueError(
            f"{label[:64]!a} in a host mixes letters of {' and '.join(_scripts(mapped))}: "
            f"correct it, or write {encoded} if this is intended"
        )
    return encoded


def _scripts(label: str) -> list[str]:
    """The scripts of its letters that are in _LOOK_ALIKE."""
    names = {unicodedata.name(character, "").partition(" ")[0] for character in label}
    return [script.capitalize() for script in _LOOK_ALIKE if script in names]
