"""foreign_server.py: the requests of test_framing.py under uvicorn's own parser.

Requests that it parses wrongly are refused, and no request gets two responses.
"""

import pytest

from scheduler_api.store.store import Store
from tests.api.conftest import Scheduler, application, raw, serving
from tests.api.test_framing import (
    CHUNKED,
    CLOSED,
    CONNECT,
    FRAMING,
    GOOD,
    LAST,
    REFUSED,
    SIZE,
    SYNTAX,
    UPGRADE,
    Row,
    post,
)
from tests.support.raw_client import exchange, head_and_body, responses, whole

HARMLESS = "without its field", "with a wrong length", "with a bad chunk"


def under_uvicorn(kind: str, name: str, row: Row) -> Row:
    """The expected result under uvicorn's parser."""
    if kind == "connect" or (kind == "upgrade" and name not in HARMLESS):
        bodiless = row.statuses[0] == 200
        return row._replace(statuses=[200 if bodiless else 400], kept=False, stored=0)
    return row._replace(kept=row.kept or row.statuses == [413])


ROWS = {
    f"{kind}: {name}": under_uvicorn(kind, name, row)
    for kind, rows in {
        "good": GOOD,
        "upgrade": UPGRADE,
        "closed": CLOSED,
        "refused": REFUSED,
        "framing": FRAMING,
        "syntax": SYNTAX,
        "connect": CONNECT,
    }.items()
    for name, row in rows.items()
    # uvicorn treats trailers as header fields; the token is valid.
    if name not in ("a token in the trailers", "no token, then a bad chunk")
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_request_gets_one_response_under_the_parser_of_uvicorn(
    live_store: Store, row: Row
) -> None:
    app = application(live_store, Scheduler(), foreign=True)
    async with serving(app, "auto") as port:
        for n, cut in enumerate((whole, head_and_body), 1):
            methods = [row.method] * len(row.statuses)
            found = await exchange(port, cut(row.request), len(row.statuses), methods)
            assert [one.status for one in found.responses] == row.statuses, cut
            assert found.kept == row.kept, cut
            assert await live_store.messages.count() == n * row.stored, cut


@pytest.mark.parametrize("name", ["h2c", "h2c in chunks", "a request as its body"])
async def test_refused_upgrade_is_a_problem_that_says_what_to_do(
    live_store: Store, name: str
) -> None:
    async with serving(application(live_store, Scheduler(), foreign=True), "auto") as port:
        found = await exchange(port, [UPGRADE[name].request])
    (response,) = found.responses
    assert response.problem["code"] == "malformed_request"
    assert "Upgrade" in response.problem["detail"]


async def test_request_with_content_length_and_chunks_is_refused(
    live_store: Store,
) -> None:
    async with serving(application(live_store, Scheduler(), foreign=True), "h11") as port:
        answer = await raw(port, post(SIZE + CHUNKED + b"Connection: close\r\n", LAST))
    (response,) = responses(answer)
    assert response.problem["code"] == "malformed_request"
    assert await live_store.messages.count() == 0
