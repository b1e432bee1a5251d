"""Pairs are examined in child processes, whose end is not the end of the service."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from app.api.examiners import Examined, Examiners, Refused
from app.api.uploads import FileSink, Spool, UploadedFile, spooled
from app.core.errors import BadImage, StorageFull
from app.core.settings import Settings
from tests.app.material import encoded, noisy, pair_files, pixels


@pytest.fixture(name="spool")
def open_spool() -> Iterator[Spool]:
    with spooled() as spool:
        yield spool


def uploaded(spool: Spool, content: bytes, field: str = "clean") -> UploadedFile:
    sink = FileSink(spool, field, f"{field}.png", 1 << 30)
    sink.write(content)
    return sink.done()


def pair_in(spool: Spool, side: int = 96) -> tuple[UploadedFile, UploadedFile]:
    clean = pixels(side, side + 6)
    return uploaded(spool, encoded(clean)), uploaded(spool, encoded(noisy(clean)), "distorted")


def large_pair(spool: Spool) -> tuple[UploadedFile, UploadedFile]:
    """A pair that takes a child some seconds."""
    tile = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    content = encoded(np.tile(tile, (24, 24, 1)), compress_level=1)
    return uploaded(spool, content), uploaded(spool, content, "distorted")


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "app.api.examiner" in child.cmdline()
    ]


def one_at_a_time(limit_s: float = 60.0) -> Examiners:
    return Examiners(Settings(examiners=1, examination_s=limit_s))


def test_a_child_serves_many_pairs_and_closing_ends_it(spool: Spool) -> None:
    before = {child.pid for child in children()}
    examiners = one_at_a_time()
    pair = pair_in(spool)
    reports = [examiners.examine(*pair, [], spool).report for _ in range(3)]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["verdict"] == "good"
    (mine,) = [child for child in children() if child.pid not in before]
    examiners.close()
    assert not mine.is_running()


def test_a_pair_whose_child_is_killed_is_refused_and_the_next_is_examined(spool: Spool) -> None:
    examiners = one_at_a_time()
    ordinary, large = pair_in(spool), large_pair(spool)
    assert isinstance(examiners.examine(*ordinary, [], spool), Examined)
    before = {child.pid for child in children()}
    refused: list[Refused] = []

    def ask() -> None:
        try:
            examiners.examine(*large, [], spool)
        except Refused as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    for child in children():
        if child.pid in before:
            child.kill()
    thread.join(60)
    ((side, reason, kind),) = refused[0].refusals
    assert side in {"clean", "distorted"}
    assert kind is BadImage
    assert "decoder" in reason
    assert examiners.examine(*ordinary, [], spool).report["verdict"] == "good"
    examiners.close()


def test_a_pair_that_takes_too_long_is_refused_and_its_child_ended(spool: Spool) -> None:
    before = {child.pid for child in children()}
    examiners = one_at_a_time(limit_s=0.01)
    with pytest.raises(Refused) as refused:
        examiners.examine(*large_pair(spool), [], spool)
    assert "longer than 0.01 s" in refused.value.refusals[0][1]
    assert {child.pid for child in children()} == before


def test_a_child_that_died_while_idle_is_replaced(spool: Spool) -> None:
    examiners = one_at_a_time()
    before = {child.pid for child in children()}
    pair = pair_in(spool)
    examiners.examine(*pair, [], spool)
    for child in children():
        if child.pid not in before:
            child.kill()
            child.wait(10)
    assert examiners.examine(*pair, [], spool).report["verdict"] == "good"
    examiners.close()


def test_a_child_has_a_bound_on_its_memory(spool: Spool) -> None:
    before = {child.pid for child in children()}
    examiners = one_at_a_time()
    examiners.examine(*pair_in(spool), [], spool)
    (mine,) = [child for child in children() if child.pid not in before]
    soft, hard = mine.rlimit(psutil.RLIMIT_DATA)
    assert soft == hard == 1 << 30
    examiners.close()


def test_no_descriptor_is_left_open(spool: Spool) -> None:
    examiners = one_at_a_time()
    pair = pair_in(spool)
    examiners.examine(*pair, [], spool)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - nothing but their number is asked
    for _ in range(5):
        examiners.examine(*pair, [], spool)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    examiners.close()


def test_mended_pairs_come_back_as_files(spool: Spool) -> None:
    examiners = one_at_a_time()
    scene = pixels(150, 140)
    clean = uploaded(spool, encoded(scene[10:110, 10:130]))
    distorted = uploaded(spool, encoded(noisy(scene)[5:105, 13:133]), "distorted")
    answer = examiners.examine(clean, distorted, ["align"], spool)
    assert answer.fixed is not None
    assert [file.field for file in answer.fixed] == ["clean", "distorted"]
    for file in answer.fixed:
        with file.open() as stream:
            content = stream.read()
        assert content.startswith(b"\x89PNG")
        assert len(content) == file.size
    examiners.close()


class FullDisk(Spool):
    """Files that are made of the request's have no room."""

    def another(self) -> Spool:
        other = super().another()
        other._file.close()
        other._file = Path("/dev/full").open("r+b")  # noqa: SIM115 - closed with the spool
        return other


def test_a_full_disk_is_not_the_fault_of_the_images_and_the_child_goes_on(spool: Spool) -> None:
    examiners, full = one_at_a_time(), FullDisk()
    scene = pixels(150, 140)
    clean = uploaded(spool, encoded(scene[10:110, 10:130]))
    distorted = uploaded(spool, encoded(noisy(scene)[5:105, 13:133]), "distorted")
    with pytest.raises(StorageFull):
        examiners.examine(clean, distorted, ["align"], full)
    (child,) = (idle._process.pid for idle in examiners._idle)
    assert examiners.examine(clean, distorted, ["align"], spool).fixed is not None
    assert [idle._process.pid for idle in examiners._idle] == [child]
    examiners.close()
    full.close()


def test_the_service_answers_while_pairs_are_examined(client: httpx.Client) -> None:
    thread = threading.Thread(target=lambda: client.post("/v1/datasets", files=pair_files(6, 400, 400), timeout=110))
    thread.start()
    slowest = 0.0
    while thread.is_alive():
        start = time.perf_counter()
        assert client.get("/healthz", timeout=60).status_code == 200
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 10  # Examining takes longer than that where the machine is as busy as this allows for.
