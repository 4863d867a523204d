"""pages.py: /docs works with files of this server only."""

import re

import pytest

from tests.api.conftest import Api
from tests.support.problems import problem

ASSET = re.compile(r'(?:src|href)="([^"]+)"')


async def test_docs_page_loads_nothing_from_another_site(api: Api) -> None:
    async with api.client.get("/docs") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        text = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert not [url for url in ASSET.findall(text) if re.match(r"\w+:(?!,)|//", url)]
    assert "default-src 'none'" in policy
    assert "http" not in policy


async def test_docs_page_links_only_to_files_that_exist(api: Api) -> None:
    async with api.client.get("/docs") as response:
        names = [name for name in ASSET.findall(await response.text()) if name != "data:,"]
    assert {"docs/docs.js", "openapi.json"} < set(names)
    for name in names:
        async with api.client.get(f"/{name}") as response:
            assert response.status == 200
            assert len(await response.read()) > 100


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("docs.js", "text/javascript"),
    ],
)
async def test_docs_file_has_its_media_type_and_nosniff(
    api: Api, name: str, media_type: str
) -> None:
    async with api.client.get(f"/docs/{name}") as response:
        assert response.content_type == media_type
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["nope.js", "..%2Fapp.py", "%2e%2e%2fapp.py", "docs.js%00"])
async def test_docs_serves_no_other_file(api: Api, name: str) -> None:
    head = f"GET /docs/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert (await api.raw(head.encode())).startswith(b"HTTP/1.1 404 ")


async def test_docs_answers_a_missing_file_with_a_problem(api: Api) -> None:
    async with api.client.get("/docs/nope.js") as response:
        await problem(response, 404, "not_found")
