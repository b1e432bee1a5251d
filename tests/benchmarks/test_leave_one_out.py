"""The leave-one-out benchmark at the smallest scale: what it reports, and that it goes on where it stopped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

from benchmarks import leave_one_out
from benchmarks.devices import middle
from benchmarks.leave_one_out import SIDE, distorted_pairs
from ml import relation
from ml.dead_leaves import dead_leaves
from ml.distortions import DISTORTIONS
from ml.edges import Edges
from ml.images import to_uint8

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for index in range(2):
        pixels = to_uint8(dead_leaves(120, torch.Generator().manual_seed(index), leaves=150))
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


def run(output: Path, photographs: Path, *left_out: str, edges: Edges = "cosine") -> dict[str, Any]:
    """The command with its function called; what it wrote."""
    sizes: dict[str, Any] = {"steps": 2, "samples": 2, "width": 1 / 16, "memory_nodes": 2, "learn": "paper"}
    leave_one_out.measure(
        output, photographs, photographs, list(left_out), affinity="scaled", edges=edges, seed=0, **sizes
    )
    report: dict[str, Any] = json.loads(output.read_text())
    return report


def test_it_trains_without_the_one_left_out_reports_its_cluster_and_resumes(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(relation, "PATCHES_PER_PAIR", 2)
    output = tmp_path / "report.json"
    first = run(output, photographs, "noise")
    assert list(first["networks"]) == ["none", "noise"]
    for network in first["networks"].values():
        assert list(network) == ["patches", "pairs", "devices", "devices with strength"]
        for clusters in network.values():
            assert list(clusters) == list(DISTORTIONS)  # Those that no network was trained on are embedded too.
            for near in clusters.values():
                assert -1 <= near["silhouette"] <= 1
                assert 0 <= near["own_neighbours"] <= 1
                assert near["own_neighbours"] + sum(near["strangers"].values()) <= 1 + 1e-3
    assert first["networks"]["none"] != first["networks"]["noise"]

    capsys.readouterr()
    again = run(output, photographs, "noise", "blur")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["without blur"]
    assert {name: again["networks"][name] for name in first["networks"]} == first["networks"]

    with pytest.raises(typer.BadParameter, match="has other options"):
        run(output, photographs, "noise", edges="l1")
    assert json.loads(output.read_text()) == again


def test_as_a_command_it_refuses_a_file_of_other_options(photographs: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    output.write_text(json.dumps({"asked": {"edges": "cosine"}, "networks": {}}))
    command: list[str | Path] = [sys.executable, ROOT / "benchmarks/leave_one_out.py", "--output", output]
    command += ["--train", photographs, "--unseen", photographs]
    command += ["--left-out", "noise", "--edges", "l1", "--samples", "2", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2
    assert "has other options" in " ".join(done.stderr.replace("│", " ").split())
    assert json.loads(output.read_text())["asked"] == {"edges": "cosine"}


def test_pairs_are_the_same_scenes_distorted_once_and_of_one_strength_alike() -> None:
    images = [to_uint8(dead_leaves(360, torch.Generator().manual_seed(index), leaves=150)) for index in range(2)]

    def spread(strength: float | None) -> float:
        pairs = distorted_pairs(images, "noise", strength, 6, seed=0)
        assert all(torch.equal(pair.clean, middle(images[place % 2], SIDE)) for place, pair in enumerate(pairs))
        sigma = [float((pair.distorted.float() - pair.clean.float()).std()) for pair in pairs]
        return max(sigma) - min(sigma)

    assert spread(0.5) < 1  # σ is 25 of 255 for all, but for what is clipped.
    assert spread(None) > 10  # Drawn from 0 to 50.
