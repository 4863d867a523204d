"""The arguments of import; tests/admin tests what the admin commands do."""

import pytest

from tests.cli.commands import run


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:hidden@x?family=0", "unknown option after ?"),
        ("redis://:hidden@x/prod", "a database number"),
        ("redis+cluster://:hidden@x", "must be redis://HOST, rediss://HOST or unix:///PATH"),
        ("hidden", "must be one of redis://HOST"),
    ],
)
def test_import_with_an_invalid_original_url_prints_one_line_and_exits_2(
    url: str, expected: str
) -> None:
    done = run("import", "--from-original", url)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --from-original is invalid: ")
    assert expected in done.stderr
    assert "hidden" not in done.stderr
    assert done.stderr.count("\n") == 1
