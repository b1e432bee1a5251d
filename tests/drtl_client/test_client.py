"""The client against the real service: trainings, models and images, blocking and awaiting, through faults."""

import os
import signal
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import networkx as nx
import numpy as np
import pytest
from PIL import Image

from drtl_client import AsyncClient, Client, Job, errors, events
from tests.images import image_pairs
from tests.servers import RunningService

SHORT: dict[str, Any] = {"scheme": "baseline", "finetune_steps": 20, "unshuffle": 4}


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs on disk."""
    folder = tmp_path_factory.mktemp("pairs") / "Old Scanner"
    for stem, clean, distorted in image_pairs(6):
        for kind, content in (("clean", clean), ("distorted", distorted)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{stem}.png").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def trained(service: RunningService, folder: Path) -> Job:
    """A job that has made the model `trained`."""
    with Client(service.url) as client:
        return client.jobs.wait(client.jobs.create(folder, name="trained", **SHORT), timeout_s=90)


def photo(width: int = 37, height: int = 31) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


# ---- pairs in every form


def test_a_folder_becomes_a_model_named_after_it(client: Client, folder: Path) -> None:
    sent: list[tuple[int, int]] = []
    job = client.jobs.create(folder, on_upload=lambda done, total: sent.append((done, total)), **SHORT)
    assert job.name == "old-scanner"
    assert job.state == "queued"
    size = sum(path.stat().st_size for path in folder.rglob("*.png"))
    assert sent[-1] == (size, size)
    assert sorted(sent) == sent
    client.jobs.cancel(job)


def test_zip_folder_bytes_images_and_arrays_are_the_same_pairs(client: Client, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pairs.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(folder.rglob("*.png")):
            zipped.write(path, path.relative_to(folder))
    files = [(folder / "clean" / path.name, path) for path in sorted((folder / "distorted").iterdir())]
    given = [
        folder,
        str(folder),
        archive,
        files,
        [(clean.read_bytes(), distorted.read_bytes()) for clean, distorted in files],
        [(Image.open(clean), Image.open(distorted)) for clean, distorted in files],
        [(np.asarray(Image.open(clean)), np.asarray(Image.open(distorted))) for clean, distorted in files],
    ]
    datasets = [client.datasets.create(pairs) for pairs in given]  # type: ignore[arg-type]  # a list of many kinds
    reports = [[(pair.psnr_db, pair.scale, pair.verdict) for pair in dataset.pairs] for dataset in datasets]
    assert all(report == reports[0] for report in reports)
    assert {dataset.id for dataset in client.datasets.list()} >= {dataset.id for dataset in datasets}
    again = client.datasets.get(datasets[0].id)
    assert again == datasets[0]
    job = client.jobs.create(datasets[0], name="from-dataset", **SHORT)
    assert job.dataset_id == datasets[0].id
    client.jobs.cancel(job)


# ---- refusals


def test_a_refusal_is_an_exception_of_its_own_with_pointer_and_files(client: Client, folder: Path) -> None:
    broken = [(path.read_bytes()[:-50], path) for path in sorted((folder / "clean").iterdir())]
    with pytest.raises(errors.BadImage) as refusal:
        client.jobs.create(broken, name="broken")
    assert len(refusal.value.files) == len(broken)
    assert refusal.value.files[0].reason in str(refusal.value)
    with pytest.raises(errors.Unprocessable) as wrong:
        client.jobs.create(folder, colour="blue")
    assert wrong.value.pointer == "/colour"
    with pytest.raises(errors.NotFound):
        client.jobs.get("job_00")
    with pytest.raises(errors.NotFound):
        client.models["nobody"].super_resolve(photo())


# ---- a job


def test_watching_tells_a_job_from_its_start_to_its_model(client: Client, trained: Job) -> None:
    assert trained.succeeded
    told = list(client.jobs.watch(trained))
    assert [event.id for event in told] == sorted({event.id for event in told})
    started, last = told[0], told[-1]
    assert isinstance(started, events.Started)
    assert started.attempt == 1
    assert isinstance(last, events.Succeeded)
    assert trained.model is not None
    assert last.model == trained.model.reference
    progress = [event.progress for event in told if isinstance(event, events.Progress)]
    assert progress == sorted(progress)
    assert progress[-1] <= 1
    assert any(isinstance(event, events.GraphReady) for event in told)
    assert list(client.jobs.watch(trained, after=last.id)) == []
    later = list(client.jobs.watch(trained, after=told[2].id))
    assert later == told[3:]


def test_the_graph_is_one_of_networkx_with_gamma_on_its_nodes(client: Client, trained: Job) -> None:
    relation = client.jobs.relation(trained)
    graph = client.jobs.graph(trained)
    assert isinstance(graph, nx.Graph)
    assert list(relation.gamma.values()) == sorted(relation.gamma.values(), reverse=True)
    for name, gamma in relation.gamma.items():
        assert graph.nodes[name]["gamma"] == gamma
        assert graph.edges[name, relation.graph["target"]]["cosine"] == pytest.approx(gamma, abs=0.01)
    assert relation.sentence
    assert b"<svg" in bytes(client.jobs.graph_svg(trained))


def test_lists_go_on_over_pages(client: Client, trained: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drtl_client.pages.LARGEST_PAGE", 2)
    ended = [
        client.jobs.cancel(client.jobs.create(client.datasets.get(trained.dataset_id), name=f"n{n}")) for n in range(5)
    ]
    found = [job.id for job in client.jobs.list()]
    assert found[:5] == [job.id for job in reversed(ended)]
    assert trained.id in found
    assert len(found) == len(set(found))
    assert [job.id for job in client.jobs.list(limit=3)] == found[:3]
    assert trained.id in [job.id for job in client.jobs.list(state="succeeded")]


# ---- a model


def test_an_image_is_restored_whatever_form_it_has(client: Client, trained: Job, tmp_path: Path) -> None:
    image = photo()
    image.save(tmp_path / "photo.png")
    model = client.models["trained@1"]
    results = [
        model.super_resolve(given)
        for given in (tmp_path / "photo.png", (tmp_path / "photo.png").read_bytes(), image, np.asarray(image))
    ]
    for restored in results:
        assert restored.content == results[0].content
        assert restored.model == "trained@1"
        assert restored.media_type == "image/png"
        assert restored.tile is not None
        assert restored.precision
        assert restored.seconds is not None
        assert restored.array().shape == (31, 37, 3)
    path = results[0].save(tmp_path / "restored.png")
    assert Image.open(path).tobytes() == results[0].image().tobytes()
    assert model.super_resolve(image, accept="image/jpeg").image().format == "JPEG"


def test_a_result_written_to_disk_is_the_one_in_memory(client: Client, trained: Job, tmp_path: Path) -> None:
    model = client.models["trained@1"]
    how = model.super_resolve_to(tmp_path / "restored.png", photo())
    assert (how.model, how.media_type) == ("trained@1", "image/png")
    with Image.open(tmp_path / "restored.png") as image:
        assert image.size == (37, 31)
    assert [path.name for path in tmp_path.iterdir()] == ["restored.png"]
    with pytest.raises(errors.UnsupportedMedia):
        model.super_resolve_to(tmp_path / "nothing.png", b"no image")
    assert not (tmp_path / "nothing.png").exists()


def test_an_image_can_be_left_with_the_service_and_fetched_later(client: Client, trained: Job) -> None:
    operation = client.models["trained@1"].submit(photo())
    assert client.operations.wait(operation, timeout_s=60).state == "succeeded"
    assert client.operations.result(operation).image().size == (37, 31)


def test_a_version_is_found_by_number_by_alias_and_by_name(client: Client, trained: Job, tmp_path: Path) -> None:
    client.models["trained@1"].promote("candidate")
    assert client.models.get("trained").aliases["candidate"] == 1
    for reference in ("trained", "trained@1", "trained@candidate"):
        version = client.models[reference].version()
        assert (version.name, version.version, version.job_id) == ("trained", 1, trained.id)
        assert client.models[reference].card == version.card
    assert client.models["trained@candidate"].number() == 1
    if trained.verdict == "no_gain":
        with pytest.raises(errors.NotFound, match="no version in production"):
            client.models["trained"].number()
    with pytest.raises(errors.NotFound, match="no alias 'other'"):
        client.models["trained@other"].version()
    assert "trained" in [model.name for model in client.models.list()]

    weights = client.models["trained@candidate"].download(tmp_path)
    assert weights.name == "trained-v1.safetensors"
    assert client.models["trained@1"].download(tmp_path / "named").read_bytes() == weights.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named", weights.name]


# ---- deleting


def test_a_model_its_job_and_its_pairs_are_deleted_in_this_order(client: Client, folder: Path) -> None:
    job = client.jobs.wait(client.jobs.create(folder, name="to-delete", **SHORT), timeout_s=90)
    again = client.jobs.create(client.datasets.get(job.dataset_id), name="to-delete", new_version=True, **SHORT)
    with pytest.raises(errors.Conflict, match=again.id):
        client.models["to-delete"].delete()
    with pytest.raises(errors.Conflict, match="to-delete@1"):
        client.jobs.delete(job)
    with pytest.raises(errors.Conflict, match="has not ended"):
        client.jobs.delete(again)
    with pytest.raises(errors.Conflict, match=job.id):
        client.datasets.delete(job.dataset_id)
    again = client.jobs.wait(again, timeout_s=90)
    client.models["to-delete@1"].promote("old")
    client.models["to-delete@old"].delete()
    assert client.models.get("to-delete").versions == (2,)
    client.models["to-delete"].delete()
    with pytest.raises(errors.NotFound):
        client.models["to-delete"].delete()
    for each in (job, again):
        client.jobs.delete(each)
        with pytest.raises(errors.NotFound):
            client.jobs.get(each)
    dataset = client.datasets.get(job.dataset_id)
    client.datasets.delete(dataset)
    with pytest.raises(errors.NotFound):
        client.datasets.delete(dataset)


def test_those_who_await_delete_as_well(service: RunningService, folder: Path) -> None:
    async def delete() -> None:
        async with AsyncClient(service.url) as client:
            job = await client.jobs.cancel(await client.jobs.create(folder, name="awaited-deletion", **SHORT))
            await client.jobs.wait(job, timeout_s=30)
            with pytest.raises(errors.NotFound):
                await client.models["awaited-deletion"].delete()
            with pytest.raises(errors.Conflict):
                await client.datasets.delete(job.dataset_id)
            await client.jobs.delete(job)
            await client.datasets.delete(job.dataset_id)
            with pytest.raises(errors.NotFound):
                await client.datasets.get(job.dataset_id)

    anyio.run(delete)


# ---- awaiting


@pytest.mark.parametrize("backend", ["asyncio"])
def test_the_awaiting_client_does_the_main_job(service: RunningService, folder: Path, backend: str) -> None:
    async def main_job() -> None:
        async with AsyncClient(service.url) as client:
            assert await client.ready()
            job = await client.jobs.create(folder, name="awaited", **SHORT)
            told = [event async for event in client.jobs.watch(job)]
            assert isinstance(told[-1], events.Succeeded)
            assert isinstance(await client.jobs.graph(job), nx.Graph)
            restored = await client.models[told[-1].model].super_resolve(photo())
            assert restored.image().size == (37, 31)
            async for newest in client.jobs.list(limit=1):
                assert newest.id == job.id

    anyio.run(main_job, backend=backend)


# ---- faults


def test_watching_goes_on_where_it_was_when_the_api_is_killed(
    service: RunningService, client: Client, folder: Path
) -> None:
    job = client.jobs.create(folder, name="restarted", scheme="baseline", unshuffle=4, finetune_steps=60)
    told = []
    for event in client.jobs.watch(job):
        told.append(event)
        if len(told) in (3, 6):
            os.kill(service.pid("api"), signal.SIGKILL)
    assert isinstance(told[-1], events.Succeeded)
    assert told == list(client.jobs.watch(job))


@contextmanager
def losing_the_first_answer(url: str, to: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A TCP proxy that drops the first answer to such a request; yields its URL and the requests that it has seen."""
    service = urlsplit(url)
    seen: list[bytes] = []

    def carry(source: socket.socket, target: socket.socket) -> None:
        with source, target:
            while piece := source.recv(1 << 16):
                target.sendall(piece)

    def answer(caller: socket.socket) -> None:
        with caller, socket.create_connection((service.hostname, service.port)) as inner:
            asked = b""

            def forward() -> None:
                nonlocal asked
                while piece := caller.recv(1 << 16):
                    if not asked:
                        asked = piece.split(b"\r\n", 1)[0]
                        seen.append(asked)
                    inner.sendall(piece)

            threading.Thread(target=forward, daemon=True).start()
            while piece := inner.recv(1 << 16):
                if asked.startswith(to) and [line for line in seen if line.startswith(to)] == [asked]:
                    caller.shutdown(socket.SHUT_RDWR)
                    return
                caller.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(caller,), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)


def test_a_job_whose_answer_was_lost_is_made_once(service: RunningService, folder: Path) -> None:
    with losing_the_first_answer(service.url, b"POST /v1/jobs ") as (url, seen), Client(url) as client:
        job = client.jobs.create(folder, name="lost-answer", **SHORT)
        assert [line for line in seen if line.startswith(b"POST")] == [b"POST /v1/jobs HTTP/1.1"] * 2
        assert [found.id for found in client.jobs.list() if found.name == "lost-answer"] == [job.id]
        client.jobs.cancel(job)


def test_an_image_whose_answer_was_lost_is_restored_once(service: RunningService, client: Client, trained: Job) -> None:
    path = b"POST /v1/models/trained@1/super-resolve"
    with losing_the_first_answer(service.url, path) as (url, seen), Client(url) as unlucky:
        known = {found.id for found in client.operations.list()}
        operation = unlucky.models["trained@1"].submit(photo())
        assert len([line for line in seen if line.startswith(path)]) == 2
        assert {found.id for found in client.operations.list()} - known == {operation.id}
        assert client.operations.wait(operation, timeout_s=60).state == "succeeded"


def test_an_upload_that_cannot_be_repeated_is_not_sent_again_when_its_answer_is_lost(
    service: RunningService, folder: Path
) -> None:
    with losing_the_first_answer(service.url, b"POST /v1/datasets ") as (url, seen), Client(url) as client:
        with pytest.raises(errors.Unreachable):
            client.datasets.create(folder)
        assert len(seen) == 1


def test_nobody_at_the_address_is_said_so() -> None:
    with Client("http://127.0.0.1:9", retries=1) as client:
        assert not client.ready()
        with pytest.raises(errors.Unreachable, match=r"http://127\.0\.0\.1:9 does not answer"):
            client.jobs.get("job_1")
