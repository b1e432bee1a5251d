"""Models as files over HTTP, from the running service: what was registered, and the same as ONNX."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from tests.registered import model_file, register
from tests.servers import RunningService, eventually


@pytest.fixture(scope="module")
def weights() -> bytes:
    return model_file()


def onnx_of(service: RunningService, name: str) -> httpx.Response:
    """The file, asked for until it is there."""

    def answer() -> httpx.Response | None:
        answer = service.http.get(f"/v1/models/{name}/versions/1/onnx")
        if answer.status_code == 409:
            assert answer.json()["type"] == "/problems/not-ready"
            assert int(answer.headers["retry-after"]) > 0
            return None
        return answer

    found = eventually(answer, timeout_s=90, what="the ONNX file")
    assert found is not None
    return found


def test_the_onnx_file_does_what_the_registered_model_does(
    service: RunningService, weights: bytes, tmp_path: Path
) -> None:
    import torch

    from ml.model_file import unpack

    register(service, "exported", weights)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: onnx_of(service, "exported"), range(4)))
    assert len({answer.headers["etag"] for answer in answers}) == 1
    answer = answers[0]
    assert answer.status_code == 200
    assert 'filename="exported-v1.onnx"' in answer.headers["content-disposition"]
    (tmp_path / "model").write_bytes(weights)
    network, _ = unpack(tmp_path / "model")
    image = torch.rand(1, 3, 37, 31, generator=torch.Generator().manual_seed(1))
    (restored,) = onnxruntime.InferenceSession(answer.content).run(None, {"image": image.numpy()})
    with torch.inference_mode():
        assert np.abs(restored - network(image).clamp(0, 1).numpy()).max() < 1e-4
    seen = service.http.get("/v1/models/exported/versions/1/onnx", headers={"If-None-Match": answer.headers["etag"]})
    assert (seen.status_code, seen.content) == (304, b"")


def test_a_model_that_cannot_be_exported_is_told_and_tried_anew(service: RunningService) -> None:
    register(service, "broken", b"no model")
    references = set()
    for _ in range(2):
        answer = onnx_of(service, "broken")
        assert answer.status_code == 500
        assert answer.json()["type"] == "/problems/internal"
        references.add(answer.json()["detail"])
    assert len(references) == 2
    assert "not a model of ours" in service.log("worker-inference")


def test_the_command_downloads_both_files(service: RunningService, weights: bytes, tmp_path: Path) -> None:
    register(service, "carried", weights)

    def download(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from app.cli import main; main()", "models", "download", *arguments],
            cwd=tmp_path,
            env={"DRTL_URL": service.url, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )

    assert download("carried").returncode == 0
    assert (tmp_path / "carried-v1.safetensors").read_bytes() == weights
    ended = download("carried@production", "--onnx", "-o", "other.onnx")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "other.onnx").read_bytes() == onnx_of(service, "carried").content
    refused = download("carried@7")
    assert refused.returncode == 1
    assert "no version 7" in refused.stderr
    kept = download("carried@1")
    assert kept.returncode == 1
    assert "exists" in kept.stderr
