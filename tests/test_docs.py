"""What the documentation says is true: its links, paths, commands, calls, settings and tables."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer

import drtl_client
from app.cli import app as cli
from app.core import errors
from app.core.settings import Settings
from app.main import create_app
from docs import build_site as site

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

PACKAGES = ("app/", "drtl_client/", "worker/", "ml/", "migrations/", "tests/", "benchmarks/", "docs/", ".ci/")


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def code_spans(page: Path) -> list[str]:
    without_blocks = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", without_blocks)


def commands(page: Path) -> list[str]:
    """Every shell line of the page's code blocks and spans, continuation lines joined, comments cut off."""
    blocks = "\n".join(code_blocks(page, "sh")).replace("\\\n", " ")
    lines = [re.sub(r"(^|\s)# .*", "", line).strip() for line in blocks.splitlines()]
    return [line for line in [*lines, *code_spans(page)] if line]


def heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages() -> None:
    assert len(PAGES) > 8


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        link = urlsplit(target)
        if link.scheme:
            continue
        file = (page.parent / link.path) if link.path else page
        assert file.exists(), f"{target} does not exist"
        if link.fragment:
            assert link.fragment in heading_anchors(file), f"{target} names no heading"


@pages
def test_every_path_that_is_named_exists(page: Path) -> None:
    for span in code_spans(page):
        if span.startswith(PACKAGES) and not set(span) & set("*<>{ "):
            assert (ROOT / span).exists(), f"{span} does not exist"


@pages
def test_every_name_beside_a_file_is_in_that_file(page: Path) -> None:
    """`name` in `file.py` is how the pages point at code."""
    for names, file in re.findall(r"((?:`\w[\w.]*`, )*`\w[\w.]*`)(?: in|,) `(\w+/[\w/]+\.py)`", page.read_text()):
        source = (ROOT / file).read_text()
        for name in re.findall(r"`([\w.]+)`", names):
            if "/" not in name and not name.endswith(".py"):
                assert re.search(rf"\b{name.split('.')[-1]}\b", source), f"{file} has no {name}"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*  ## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pages
def test_every_make_target_exists(page: Path) -> None:
    for command in commands(page):
        if match := re.match(r"make ([a-z]+)", command):
            assert match[1] in make_targets(), command


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in make_targets():
        assert f"make {target}" in listed


@pages
def test_every_drtl_command_exists_with_its_options(page: Path) -> None:
    for line in commands(page):
        match = re.search(r"(?:^|[\s/=])drtl((?: [^|;&]+)*)", line)
        if match is None or "--help" in line or not match[1].strip():
            continue
        command = typer.main.get_command(cli)
        words = match[1].split()
        while words and (commands_below := getattr(command, "commands", None)):
            assert words[0] in commands_below, f"{line}: there is no command {words[0]}"
            command = commands_below[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        if not command.context_settings.get("ignore_unknown_options"):
            for word in words:
                assert not word.startswith("--") or word in known, f"{line}: {word} is not an option"


@pages
def test_every_call_is_a_route(page: Path) -> None:
    routes = [
        (method.upper(), re.sub(r"\{[^}]+\}", "[^/]+", path))
        for path, operations in create_app().openapi()["paths"].items()
        for method in operations
    ]

    def exists(method: str, path: str) -> bool:
        return any(method == known and re.fullmatch(pattern, path) for known, pattern in routes)

    for line in commands(page):
        for url in re.findall(r"http://127\.0\.0\.1:8000(/[^\s'\"]*)", line):
            sends = re.search(r"\s(-F|-d|--data-binary)\s", line)
            assert exists("POST" if sends else "GET", urlsplit(url).path), line
        for method, path in re.findall(r"\b(GET|POST|PUT|DELETE) (/[\w/{}.-]+)", line):
            assert exists(method, path), f"{method} {path} is not a route"


def test_every_route_is_in_the_map() -> None:
    named = {path for span in code_spans(ROOT / "docs/api.md") for path in re.findall(r"^[A-Z]+ (/\S+)", span)}
    assert named == set(create_app().openapi()["paths"])


@pages
def test_every_environment_variable_is_read_by_something(page: Path) -> None:
    known = {f"DRTL_{name.upper()}" for name in Settings.model_fields} | {
        "DRTL_URL",
        "DRTL_KEY",
        "DRTL_REQUIRE_SERVERS",
    }
    known |= set(re.findall(r"\bDRTL_[A-Z_]+\b", (ROOT / "docker-compose.yml").read_text()))
    for variable in re.findall(r"\bDRTL_[A-Z_]+\b", page.read_text()):
        assert variable in known


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(DRTL_\w+)` \| (.+?) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    assert set(rows) == {f"DRTL_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if (stated := rows[f"DRTL_{name.upper()}"]).startswith("`") and isinstance(field.default, int | float | str):
            shown = f"{field.default:.12g}" if isinstance(field.default, float) else str(field.default)
            assert shown in stated, name


def test_every_problem_type_is_listed_with_its_status() -> None:
    def tree(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]

    rows = set(re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.+) \|$", (ROOT / "docs/api.md").read_text(), re.MULTILINE))
    assert rows == {(kind.code, str(kind.status), kind.title) for kind in tree(errors.ServiceError)}


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in asked}
    listed = set(
        re.findall(r"^\| ([a-z0-9-]+) \| [\d.]+", (ROOT / "docs/adr/0002-dependencies.md").read_text(), re.MULTILINE)
    )
    assert names == listed


def test_the_backup_of_one_machine_takes_all_that_cannot_be_made_again() -> None:
    home = Settings(data_dir=Path("~/.drtl"), database_url="", blob_dir=None)
    needed = {home.database_url.removeprefix("sqlite:///"), str(home.blob_dir), "~/.drtl/webhook.key"}
    (block,) = [block for block in code_blocks(ROOT / "docs/upgrades.md", "sh") if "~/.drtl/" in block]
    assert set(re.findall(r"~/\.drtl/[\w.]+", block)) == needed


def test_every_decision_has_a_number_and_a_heading() -> None:
    for record in (ROOT / "docs/adr").glob("[0-9]*.md"):
        assert record.read_text().startswith(f"# {record.name[:4]}: ")


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make test" in script
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What `benchmarks/table.py` prints of each file that is recorded."""
    script = """
import json, pathlib, table
files = pathlib.Path("results").glob("*.json")
print(json.dumps({file.stem: table.table(json.loads(file.read_text())) for file in files}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT / "benchmarks", capture_output=True, check=True)
    tables: dict[str, str] = json.loads(done.stdout)
    return tables


@pytest.mark.parametrize("recorded", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda path: path.stem)
def test_a_page_of_results_shows_what_was_recorded(recorded: Path, printed: dict[str, str]) -> None:
    pages = [(ROOT / "docs" / page).read_text() for page in ("results.md", "reliability.md")]
    assert any(printed[recorded.stem].strip() in page for page in pages)


BY_SEED = re.findall(
    r"`python (benchmarks/by_seed\.py [^`]+)` prints\n\n(.*?)\n\n", (ROOT / "docs/results.md").read_text(), re.DOTALL
)


@pytest.mark.parametrize(("command", "shown"), BY_SEED, ids=[command for command, _ in BY_SEED])
def test_what_is_shown_seed_by_seed_is_what_the_command_prints(command: str, shown: str) -> None:
    done = subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == shown.split("\n- ", maxsplit=1)[0].strip()


def test_figures_are_shown_seed_by_seed() -> None:
    assert len(BY_SEED) >= 3


def test_the_site_builds_without_a_broken_link_and_reads_without_a_network(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs/build_site.py", tmp_path / "site"], check=True, capture_output=True)
    pages_made = {str(page.relative_to(tmp_path / "site").with_suffix("")) for page in tmp_path.rglob("*.html")}
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs").with_suffix("")) in pages_made
    for page in tmp_path.rglob("*.html"):
        foreign = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text())
        assert not foreign, page
    reference = (tmp_path / "site/http-reference.html").read_text()
    for path in create_app().openapi()["paths"]:
        assert path in reference


def test_every_page_is_in_the_sites_navigation() -> None:
    def leaves(entries: object) -> set[str]:
        if isinstance(entries, str):
            return {entries}
        assert isinstance(entries, list | dict)
        below = entries.values() if isinstance(entries, dict) else entries
        return {leaf for each in below for leaf in leaves(each)}

    navigation = leaves(tomllib.loads(site.configuration())["project"]["nav"])
    assert {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"} <= navigation


@pages
def test_every_python_example_is_valid_and_names_what_exists(page: Path) -> None:
    for block in code_blocks(page, "python"):
        compile(block, str(page), "exec")
        for name in re.findall(r"errors\.(\w+)", block):
            assert hasattr(drtl_client.errors, name), name
        for resource, method in re.findall(r"client\.(jobs|datasets|operations|batches|models|webhooks)\.(\w+)", block):
            assert hasattr(getattr(drtl_client.Client("http://service"), resource), method), f"{resource}.{method}"
