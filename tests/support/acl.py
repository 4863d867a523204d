"""The ACL rights that docs/deploy/redis.md gives the store's user, as lines of redis.conf."""

import re
from pathlib import Path
from typing import Final

PASSWORD: Final = "password-of-the-rights-tests"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "deploy" / "redis.md"


def granted(*without: str) -> str:
    """The documented line, without some of its words."""
    line = re.search(r"^user scheduler .*$", DOCUMENT.read_text(), re.MULTILINE)
    assert line, "the document has the line"
    words = line[0].replace("PASSWORD", PASSWORD).split()
    assert set(without) <= set(words)
    return " ".join(word for word in words if word not in without)
