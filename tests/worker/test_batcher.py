"""One device shared among images: in turn, small ones first, those of a kind together."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from ml.backbones import Part, SameSize, build
from ml.precision import Arithmetic, Computed, NotFinite, compute
from tests.layers import convolution
from worker import batcher as module
from worker.batcher import Batcher


@pytest.fixture
def network() -> SameSize:
    network = build("vdsr", 2, 0)
    torch.nn.init.normal_(convolution(network, -1).weight, std=0.05)
    return network.eval()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(most_together=4, threads=1)
    yield batcher
    batcher.close()


class Gate:
    """Holds the network's first call until it is opened, and notes the size of every batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches: list[tuple[int, ...]] = []
        monkeypatch.setattr(module, "compute", self._compute)

    def _compute(self, network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic) -> Computed:
        self.batches.append(tuple(batch.shape))
        self.entered.set()
        assert self.open.wait(20)
        return compute(network, batch, part, arithmetic)


def whole(height: int, width: int) -> Part:
    return Part(0, height, 0, width)


def started(*calls: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def waiting_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_images_that_go_together_come_back_as_if_alone(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    images = [torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    results = {}

    def restore(index: int) -> None:
        results[index] = batcher.run(network, images[index], whole(20, 24), "fp32", True).result

    first = started(lambda: restore(0))
    assert gate.entered.wait(20)
    others = started(*(lambda index=index: restore(index) for index in range(1, 6)))
    waiting_for(lambda: len(batcher._small) == 5)
    gate.open.set()
    for thread in first + others:
        thread.join(20)
    assert [shape[0] for shape in gate.batches] == [1, 4, 1]
    for index, image in enumerate(images):
        alone = compute(network, image, whole(20, 24), "fp32").result
        assert float((results[index] - alone).abs().max()) <= 1e-5


def test_a_small_image_waits_for_no_more_than_the_batch_at_hand(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, order = Gate(monkeypatch), []

    def restore(name: str, side: int, single: bool) -> None:
        batcher.run(network, torch.rand(1, 3, side, side), whole(side, side), "fp32", single)
        order.append(name)

    threads = started(lambda: restore("running", 16, False))
    assert gate.entered.wait(20)
    threads += started(lambda: restore("large", 16, False))
    waiting_for(lambda: len(batcher._large) == 1)
    threads += started(lambda: restore("small", 8, True))
    waiting_for(lambda: len(batcher._small) == 1)
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert [shape[2] for shape in gate.batches] == [16, 8, 16]


def test_a_small_image_is_next_however_long_the_large_ones_have_waited(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.0)
    gate = Gate(monkeypatch)
    large = torch.rand(1, 3, 16, 16)
    threads = started(lambda: batcher.run(network, large, whole(16, 16), "fp32", False))
    assert gate.entered.wait(20)
    threads += started(*[lambda: batcher.run(network, large, whole(16, 16), "fp32", False)] * 3)
    waiting_for(lambda: len(batcher._large) == 3)
    threads += started(lambda: batcher.run(network, torch.rand(1, 3, 8, 8), whole(8, 8), "fp32", True))
    waiting_for(lambda: len(batcher._small) == 1)
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert [shape[2] for shape in gate.batches] == [16, 8, 16, 16, 16]


def test_a_large_image_goes_on_although_small_ones_keep_coming(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.0)
    gate = Gate(monkeypatch)
    threads = started(lambda: batcher.run(network, torch.rand(1, 3, 6, 6), whole(6, 6), "fp32", True))
    assert gate.entered.wait(20)
    threads += started(lambda: batcher.run(network, torch.rand(1, 3, 16, 16), whole(16, 16), "fp32", False))
    waiting_for(lambda: len(batcher._large) == 1)
    threads += started(lambda: batcher.run(network, torch.rand(1, 3, 8, 8), whole(8, 8), "fp32", True))
    waiting_for(lambda: len(batcher._small) == 1)
    time.sleep(0.01)
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert [shape[2] for shape in gate.batches] == [6, 16, 8]


def test_an_image_without_a_result_takes_no_other_with_it(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on, ended = threading.Event(), threading.Event(), []

    def waiting(network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic) -> Computed:
        entered.set()
        assert go_on.wait(20)
        return compute(network, batch, part, arithmetic)

    def restore(image: torch.Tensor) -> Callable[[], None]:
        def run() -> None:
            try:
                batcher.run(network, image, whole(9, 7), "fp32", True)
                ended.append("restored")
            except NotFinite:
                ended.append("none")

        return run

    monkeypatch.setattr(module, "compute", waiting)
    threads = started(restore(torch.rand(1, 3, 9, 7)))
    assert entered.wait(20)
    threads += started(restore(torch.rand(1, 3, 9, 7)), restore(torch.full((1, 3, 9, 7), float("inf"))))
    waiting_for(lambda: len(batcher._small) == 2)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert sorted(ended) == ["none", "restored", "restored"]


def test_where_memory_does_not_suffice_for_several_they_go_one_by_one(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, entered, go_on = [], threading.Event(), threading.Event()

    def little_memory(network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic) -> Computed:
        sizes.append(len(batch))
        entered.set()
        assert go_on.wait(20)
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return compute(network, batch, part, arithmetic)

    monkeypatch.setattr(module, "compute", little_memory)
    done = []

    def restore() -> None:
        done.append(batcher.run(network, torch.rand(1, 3, 9, 7), whole(9, 7), "fp32", True))

    threads = started(restore)
    assert entered.wait(20)
    threads += started(restore, restore)
    waiting_for(lambda: len(batcher._small) == 2)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert sizes == [1, 2, 1, 1]
    assert len(done) == 3


def test_an_error_reaches_the_image_it_belongs_to_and_the_next_one_is_served(
    network: SameSize, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic) -> Computed:
        if batch.shape[2] == 8:
            raise ArithmeticError("eight")
        return compute(network, batch, part, arithmetic)

    monkeypatch.setattr(module, "compute", broken)
    with pytest.raises(ArithmeticError):
        batcher.run(network, torch.rand(1, 3, 8, 8), whole(8, 8), "fp32", True)
    assert batcher.run(network, torch.rand(1, 3, 9, 8), whole(9, 8), "fp32", True).result.shape == (1, 3, 9, 8)


def test_the_network_has_its_threads_whatever_others_set(network: SameSize, monkeypatch: pytest.MonkeyPatch) -> None:
    """New threads take on the number that was set last; a network that ran on one core of many would not be noticed."""
    seen = []

    def noting(network: SameSize, batch: Tensor, part: Part, arithmetic: Arithmetic) -> Computed:
        seen.append(torch.get_num_threads())
        return compute(network, batch, part, arithmetic)

    monkeypatch.setattr(module, "compute", noting)
    before = torch.get_num_threads()
    batcher = Batcher(most_together=1, threads=2)
    try:
        for others in (1, 3):
            torch.set_num_threads(others)
            batcher.run(network, torch.rand(1, 3, 8, 8), whole(8, 8), "fp32", True)
            assert torch.get_num_threads() == others
    finally:
        torch.set_num_threads(before)
        batcher.close()
    assert seen == [2, 2]
