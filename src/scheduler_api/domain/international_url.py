"""International URLs and hosts in ASCII: IDNA for hosts, percent-encoding for the rest.

The result is judged by domain/url.py like any other URL. Labels in xn-- form stay as given.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import idna

_URL: Final = re.compile(r"([A-Za-z]+://)([^/?#]*)(.*)", re.DOTALL)
_HOST_AND_PORT: Final = re.compile(r"([^:@\[\]\\]*)((?::[0-9]*)?)", re.ASCII)
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_MAX_LABEL: Final = 63  # characters between two dots of a host
_OTHER_DOTS: Final = re.compile("[\u3002\uff0e\uff61]")
# Unicode categories of what has no place in a URL: controls, surrogates, line ends, spaces.
_INVISIBLE: Final = frozenset(("Cc", "Cs", "Zl", "Zp", "Zs"))
# Scripts whose letters look alike; a label mixes no two of them. Their names begin these letters'
# names in Unicode.
_LOOK_ALIKE: Final = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE")


def ascii_url(text: str) -> str:
    """The URL in ASCII; what has not the parts of a URL stays as it is. Raises: ValueError."""
    found = None if text.isascii() else _URL.fullmatch(text)
    if found is None:
        return text
    return found[1] + ascii_host(found[2]) + _NOT_ASCII.sub(_percent_encoded, found[3])


def ascii_host(text: str) -> str:
    """A host, or host:port, in ASCII. Raises: ValueError for what two readers may read as two."""
    if text.isascii():
        return text
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        raise ValueError("give host or host:port without a user name, and with digits as port")
    if _OTHER_DOTS.search(found[1]):
        raise ValueError("write the dots between the parts of a host as full stops: .")
    return ".".join(map(_ascii_label, found[1].split("."))) + found[2]


def _percent_encoded(found: re.Match[str]) -> str:
    for character in found[0]:
        if unicodedata.category(character) in _INVISIBLE:
            raise ValueError(
                f"a URL has no spaces and control characters such as U+{ord(character):04X}: "
                "percent-encode or remove it"
            )
    return quote(found[0])


# Most messages go to few hosts.
@lru_cache(maxsize=1024)
def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    if len(label) > _MAX_LABEL:  # idna takes long for long text
        raise ValueError(f"a part of a host has at most {_MAX_LABEL} characters")
    try:
        usual = idna.uts46_remap(label)
        encoded = idna.alabel(usual).decode()
    except idna.IDNAError as error:
        reason = str(error).encode("ascii", "backslashreplace").decode()
        raise ValueError(
            f"{label[:64]!a} cannot be part of a host ({reason[:200]}): correct it, "
            "or write it in its xn-- form if it exists"
        ) from None
    # Other mappings, such as of full-width letters, are more than most readers of a URL know.
    if usual.isascii() or usual != unicodedata.normalize("NFC", label.lower()):
        raise ValueError(f"{label[:64]!a} in a host may be read as {encoded}: write it so")
    if len(_scripts(usual)) > 1:
        raise ValueError(
            f"{label[:64]!a} in a host mixes letters of {' and '.join(_scripts(usual))}: "
            f"correct it, or write {encoded} if it is meant"
        )
    return encoded


def _scripts(label: str) -> list[str]:
    """Those of its scripts whose letters look alike."""
    names = {unicodedata.name(character, "").partition(" ")[0] for character in label}
    return [script.capitalize() for script in _LOOK_ALIKE if script in names]
