"""The documents match the code, each other, and the files that they name."""

import base64
import re
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.routing import Route

from scheduler_api import settings
from scheduler_api.api.app import create_app
from scheduler_api.domain.attempt import ERROR_MEANINGS
from scheduler_api.domain.errors import SchedulerError
from scheduler_api.domain.signing import parse_secrets, sign
from scheduler_api.store.audit.invariants import NUMBERS

ROOT: Final = Path(__file__).parent.parent
READMES: Final = ("README.md", "README.pt-BR.md")
DOCUMENTS: Final = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
)
SECRET: Final = "whsec_" + base64.b64encode(bytes(range(32))).decode()

# Headings of the README → the same headings in Portuguese.
FIRST_PAGE: Final = {
    "Run it": "Como rodar",
    "Why this": "Por que usar",
    "What is guaranteed": "O que é garantido",
    "How it works": "Como funciona",
    "The API on one screen": "A API em uma tela",
    "What is sent": "O que é enviado",
    "Settings": "Configuração",
    "Private networks": "Redes privadas",
    "Deploy": "Implantação",
    "Operate": "Operação",
    "Documents": "Documentos",
    "Coming from the original Scheduler API": "Vindo da Scheduler API original",
    "Contributing": "Contribuir",
}


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def prose_of(document: str) -> str:
    """The text without code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(document), flags=re.MULTILINE | re.DOTALL)


def block(document: str, mark: str) -> str:
    """The code block after `<!-- tested: mark -->`."""
    found = re.findall(
        rf"<!-- tested: {mark} -->\n```\w+\n(.*?)^```$", text_of(document), re.M | re.S
    )
    assert len(found) == 1, f"{document} has one block marked {mark}"
    return str(found[0])


def headings(document: str) -> list[str]:
    return re.findall(r"^## (.+)$", prose_of(document), re.MULTILINE)


def rows(document: str) -> list[list[str]]:
    """The rows of all tables, as lists of cells."""
    lines = re.findall(r"^\| (.*) \|$", prose_of(document), re.MULTILINE)
    return [[cell.strip() for cell in re.split(r" \|(?: |$)", line)] for line in lines]


def settings_in(document: str) -> list[tuple[str, str, str]]:
    known = {it.name for it in settings.describe()}
    found = [row for row in rows(document) if row[0].strip("`") in known and len(row) == 3]
    return [(name.strip("`"), default.strip("`"), meaning) for name, default, meaning in found]


def test_readme_has_a_test_named_after_each_promise() -> None:
    """The name of a failing test then says which promise is broken."""
    table = text_of("README.md").partition("| promise |")[2].partition("\n\n")[0]
    promises = re.findall(r"^\| ([A-Z][^|]+) \|", table, re.MULTILINE)
    assert len(promises) == 6
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for promise in promises:
        assert f"def test_promise_{promise.lower().replace(' ', '_')}" in tests, promise


@pytest.mark.parametrize("document", READMES)
def test_readme_has_the_names_and_defaults_of_all_settings(document: str) -> None:
    wanted = [(it.name, it.default) for it in settings.describe()]
    assert [(name, default) for name, default, _ in settings_in(document)] == wanted


def test_readme_has_the_descriptions_of_all_settings() -> None:
    assert settings_in("README.md") == [tuple(it) for it in settings.describe()]


def test_translated_readme_describes_each_setting() -> None:
    assert all(meaning for _, _, meaning in settings_in("README.pt-BR.md"))


@pytest.mark.parametrize("document", READMES)
def test_readme_names_every_endpoint(document: str) -> None:
    named = set(re.findall(r"`([A-Z]+ /[^`]*)`", prose_of(document)))
    for route in create_app().routes:
        assert isinstance(route, Route)
        if route.path != "/docs/{name}":  # files of the page /docs
            assert {f"{it} {route.path}" for it in (route.methods or set()) - {"HEAD"}} <= named


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_to_existing_files_and_headings(document: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose_of(document)):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if fragment:
            names = headings(target.relative_to(ROOT).as_posix())
            assert fragment in {name.lower().replace(" ", "-") for name in names}, link


def verify() -> Callable[[str, dict[str, str], bytes], bool]:
    """The function that docs/signatures.md shows."""
    names: dict[str, Any] = {}
    exec(block("docs/signatures.md", "verify"), names)  # noqa: S102  our own text, which is under test
    found: Callable[[str, dict[str, str], bytes], bool] = names["verify"]
    return found


def signed(body: bytes, at: int) -> dict[str, str]:
    signature = sign(parse_secrets(SECRET), "msg_1", at, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at)}
    two_signatures = f"v1,b3RoZXI= {signature}"  # as during a rotation
    return headers | {"webhook-signature": two_signatures}


def test_verify_of_the_signatures_page_accepts_our_signature() -> None:
    body, now = b'{"n": 1}', int(time.time())
    assert verify()(SECRET, signed(body, now), body)
    assert not verify()(SECRET, signed(body, now), body + b" ")
    assert not verify()(SECRET, signed(body, now - 400), body)
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    assert not verify()(other, signed(body, now), body)


def test_readmes_have_the_same_headings() -> None:
    english = [FIRST_PAGE[name] for name in headings("README.md") if name in FIRST_PAGE]
    assert english == headings("README.pt-BR.md") == list(FIRST_PAGE.values())


@pytest.mark.parametrize("mark", ["schedule", "create", "created"])
def test_readmes_show_the_same_calls(mark: str) -> None:
    english, portuguese = (block(document, mark) for document in READMES)
    translated = portuguese.replace("lembrete-fatura-17", "invoice-17-reminder")
    assert translated.replace("fatura", "invoice") == english


def test_readmes_link_to_each_other() -> None:
    for document, other in [*pairwise(READMES), *pairwise(reversed(READMES))]:
        assert f"]({other})" in text_of(document)


def test_readme_has_less_than_300_lines() -> None:
    assert len(text_of("README.md").splitlines()) < 300


@pytest.mark.parametrize("document", READMES)
def test_readme_shell_blocks_are_valid_shell(document: str) -> None:
    for script in re.findall(r"^```sh\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_log_page_lists_exactly_the_events_of_the_code() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    logged = set(re.findall(r"\b_?log\.\w+\(\s*\"(\w+)\"", source))
    logged |= set(re.findall(r"_line\(\"\w+\", \"(\w+)\"", source))  # lines about the log itself
    assert logged
    named = {name for row in rows("docs/log.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == logged


def test_log_page_shows_the_level_of_each_event() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    levels = {
        name: "error" if level == "exception" else level
        for level, name in re.findall(r"\b_?log\.(\w+)\(\s*\"(\w+)\"", source)
    }
    shown = {name: row[1] for row in rows("docs/log.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert levels
    assert {name: shown[name] for name in levels} == levels


def test_delivery_page_lists_the_error_words_of_an_attempt() -> None:
    _, _, section = prose_of("docs/delivery.md").partition("## Error words")
    words = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(words[1:]) == sorted(ERROR_MEANINGS)  # without the table's head


def test_readme_names_every_header_that_is_sent() -> None:
    readme = text_of("README.md")
    source = text_of("src/scheduler_api/delivery/http/sender.py")
    for name in re.findall(r"headers\[\"([\w-]+)\"\]", source):
        assert f"`{name}`" in readme


def test_errors_page_lists_every_code_of_a_response() -> None:
    families = {"error", "conflict", "data_refused"}  # no response has these
    # Nor these: the server does not run.
    at_startup = {"store_not_durable", "store_start_failed", "worker_start_failed"}
    kinds = [SchedulerError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    _, _, section = prose_of("docs/errors.md").partition("## Codes")
    codes = re.findall(r"^\| \d{3} \| `(\w+)`", section, re.MULTILINE)
    expected = {kind.code for kind in kinds} - families - at_startup
    assert set(codes) == expected | {"internal_error", "method_not_allowed"}


def test_fsck_page_lists_every_rule() -> None:
    named = {name for row in rows("docs/fsck.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(NUMBERS)


def test_fault_page_names_tests_that_exist() -> None:
    paths = re.findall(r"`(tests/[\w/.]+)`", text_of("tests/faults/README.md"))
    assert len(paths) > 100
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_changelog_has_a_section_for_unreleased_changes() -> None:
    assert "## [Unreleased]" in text_of("CHANGELOG.md")
