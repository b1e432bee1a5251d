"""The page at `/docs`: every call of the service, without a word to another host."""

import hashlib
import re

import httpx

from app.api.web import REFERENCE
from tests.app.test_web import policy


def test_the_reference_runs_nothing_but_files_of_the_service(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    rules = policy(answer)
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(named) == 5
    for path in named:
        assert path.startswith("/")
        assert client.get(path).status_code == 200, path


def test_no_page_of_the_framework_that_loads_from_elsewhere_is_left(client: httpx.Client) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert "cdn.jsdelivr.net" not in client.get(path).text


def test_the_viewer_is_the_one_that_the_record_names() -> None:
    record = (REFERENCE / "README.md").read_text()
    recorded = dict(re.findall(r"^\| `(\S+)` .* `([0-9a-f]{64})` \|$", record, re.MULTILINE))
    files = [*REFERENCE.glob("swagger-ui*.js"), *REFERENCE.glob("swagger-ui*.css")]
    assert recorded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
