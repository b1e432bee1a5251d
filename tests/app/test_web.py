"""The web page as files: what is served, under which headers, and that the vendored libraries are what they say."""

import hashlib
import io
import re
import zipfile
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.api.web import STATIC
from tests.app.conftest import problem

FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
VENDOR = STATIC / "vendor"


def policy(answer: httpx.Response) -> dict[str, str]:
    rules = answer.headers["content-security-policy"].split("; ")
    return {name: value for name, _, value in (rule.partition(" ") for rule in rules)}


def test_the_page_runs_nothing_but_its_own_files(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    rules = policy(answer)
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", answer.text)


def test_what_the_page_names_is_there(client: httpx.Client) -> None:
    named = re.findall(r'(?:src|href)="(/web/[^"]+)"', client.get("/").text)
    assert len(named) > 4
    for path in named:
        assert client.get(path).status_code == 200, path


def test_every_import_leads_to_a_file() -> None:
    for file in FILES:
        if file.suffix in {".js", ".mjs"}:
            for target in re.findall(r'(?:from\s*|import\s+)"(\.[^"]+)"', file.read_text()):
                assert (file.parent / target).is_file(), f"{file.name} imports {target}"


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/styles/base.css"])
def test_an_unchanged_file_is_not_sent_again(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == "no-cache"


def test_files_outside_the_page_are_not_served(client: httpx.Client) -> None:
    for path in ("/web/../main.py", "/web/%2e%2e/%2e%2e/main.py", "/web/..%2f..%2fmain.py"):
        problem(client.get(path), 404, "not-found")


def test_the_page_is_no_part_of_the_interface(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert not {path for path in paths if path == "/" or path.startswith(("/web", "/demo"))}


def test_vendored_libraries_are_those_that_the_record_names() -> None:
    record = (VENDOR / "README.md").read_text()
    recorded = dict(re.findall(r"^\| `(\S+\.mjs)` .* `([0-9a-f]{64})` \|$", record, re.MULTILINE))
    assert recorded == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.mjs")}


def test_no_script_evaluates_text_or_asks_another_host() -> None:
    for file in FILES:
        if file.suffix in {".js", ".mjs"}:
            source = file.read_text()
            assert not re.search(r"\beval\(|new Function\(", source), file.name
            hosts = set(re.findall(r"https?://([^/\"'`\s]+)", source))
            assert hosts <= {"www.w3.org"}, file.name  # A namespace's name, not an address.


def test_the_demo_is_a_zip_that_the_service_itself_accepts(client: httpx.Client) -> None:
    archive = client.get("/demo/pairs.zip", timeout=100).content
    names = zipfile.ZipFile(io.BytesIO(archive)).namelist()
    assert len(names) == 20
    answer = client.post("/v1/datasets", content=archive, headers={"Content-Type": "application/zip"})
    assert answer.status_code == 201
    assert len(answer.json()["pairs"]) == 10


def test_the_demo_photo_is_in_no_demo_pair(client: httpx.Client) -> None:
    photo = client.get("/demo/photo.png", timeout=100).content
    archive = zipfile.ZipFile(io.BytesIO(client.get("/demo/pairs.zip", timeout=100).content))
    assert Image.open(io.BytesIO(photo)).size == (408, 408)
    assert photo not in {archive.read(name) for name in archive.namelist()}


def test_the_static_files_lie_inside_the_package() -> None:
    """The wheel takes whole packages, so what lies in one needs no further word."""
    assert STATIC.is_relative_to(Path(__file__).parents[2] / "app")
    assert (STATIC / "index.html").is_file()
