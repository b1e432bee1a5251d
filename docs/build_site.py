"""Builds the documentation as a site that needs no network to be read: `python docs/build_site.py [FOLDER]`.

The pages are those of docs/, as they are. Two more are made here: the HTTP reference out of the service's OpenAPI
document, the client's out of its own signatures, so neither can say what is not so. Broken links end the build.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.main import create_app
from docs.client_reference import client_reference
from docs.http_reference import http_reference

DOCS: Final = Path(__file__).parent
PAGES: Final[dict[str, Any]] = {
    "Start": "index.md",
    "Tutorial": "tutorial.md",
    "How it works": {"From pairs to a model": "how-it-works.md", "Equation by equation": "paper.md"},
    "Command line": "command-line.md",
    "Python client": {"Guide": "client.md", "Reference": "client-reference.md"},
    "HTTP": {"Guide": "api.md", "Reference": "http-reference.md"},
    "Operations": {"Running it": "operations.md", "Upgrades and backups": "upgrades.md"},
    "Reliability": "reliability.md",
    "Results": "results.md",
    "Code": "architecture.md",
}
EXTENSIONS: Final = ("attr_list", "tables", "pymdownx.highlight", "pymdownx.superfences", "pymdownx.inlinehilite")


def build(output: Path) -> None:
    """Write the site into the folder. Raises CalledProcessError where a link leads nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        shutil.copytree(DOCS, source / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        openapi = create_app().openapi()
        (source / "docs" / "http-reference.md").write_text(http_reference(openapi))
        (source / "docs" / "openapi.json").write_text(json.dumps(openapi))
        (source / "docs" / "client-reference.md").write_text(client_reference())
        (source / "zensical.toml").write_text(configuration())
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        subprocess.run(command, cwd=source, check=True)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(source / "site", output)


def configuration() -> str:
    """What Zensical reads. Every table on one line each, since JSON's strings and lists are TOML's too."""
    nav = [entry(title, page) for title, page in (PAGES | {"Decisions": decisions()}).items()]
    return "\n".join(
        [
            "[project]",
            'site_name = "DRTL"',
            'site_description = "Few-shot image restoration as a service"',
            "use_directory_urls = false  # Pages open from the disk, without a server.",
            f"nav = [{', '.join(nav)}]",
            "[project.theme]",
            'variant = "classic"',
            "font = false  # The reader's own, instead of one from a foreign server.",
            'features = ["navigation.indexes", "content.code.copy", "search.highlight"]',
            "[[project.theme.palette]]",
            'media = "(prefers-color-scheme: light)"',
            'scheme = "default"',
            "[[project.theme.palette]]",
            'media = "(prefers-color-scheme: dark)"',
            'scheme = "slate"',
            # In place of the theme's own list, which would fetch a renderer of diagrams from a foreign server.
            *(f"[project.markdown_extensions.{name}]" for name in EXTENSIONS),
            "[project.markdown_extensions.toc]",
            "permalink = true",
        ]
    )


def entry(title: str, page: str | dict[str, str]) -> str:
    below = json.dumps(page) if isinstance(page, str) else f"[{', '.join(entry(*each) for each in page.items())}]"
    return f"{{ {json.dumps(title, ensure_ascii=False)} = {below} }}"


def decisions() -> dict[str, str]:
    """Every decision record, by its heading."""
    records = sorted((DOCS / "adr").glob("[0-9]*.md"))
    headings = (re.match(r"# (.*)", record.read_text()) for record in records)
    return {heading[1]: f"adr/{record.name}" for heading, record in zip(headings, records, strict=True) if heading}


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve())
