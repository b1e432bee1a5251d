"""The tutorial's notebook, run cell by cell against the real service."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.images import image_pairs
from tests.servers import RunningService

NOTEBOOK = Path(__file__).parents[2] / "docs/tutorial.ipynb"


def test_the_notebook_runs_from_pairs_to_a_restored_image(
    service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stem, clean, distorted in image_pairs(4):
        for kind, content in (("clean", clean), ("distorted", distorted)):
            (tmp_path / "my-pairs" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "my-pairs" / kind / f"{stem}.png").write_bytes(content)
    (tmp_path / "photo.png").write_bytes(distorted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRTL_URL", service.url)
    names: dict[str, Any] = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)  # noqa: S102 - our own notebook
        if "parameters" in cell["metadata"].get("tags", ()):
            names["options"] = {"scheme": "baseline", "finetune_steps": 20, "unshuffle": 4}
    assert names["job"].succeeded
    assert (tmp_path / "restored.png").read_bytes() == names["restored"].content
    assert names["graph"].nodes
    names["client"].close()


def test_the_notebook_is_kept_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
