"""Training steps never wait for an accelerator, and never mix its tensors with the CPU's.

No accelerator is needed to see that: on torch's `meta` device tensors have a shape and a device but no values, so that
whatever would read a value fails.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from torch import Generator, Tensor
from torch.optim import SGD
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ml.auxiliary import auxiliary_batch
from ml.backbones import SameSize, build
from ml.chance import Together, chance_of
from ml.distortions import DISTORTIONS
from ml.drn import DistortionRelationNetwork, DrnShape
from ml.finetune import FinetuneSchedule, finetune_step
from ml.losses import LossName
from ml.meta import MetaSchedule, Order, meta_step
from ml.pairs import TargetPair
from ml.relation import drn_step
from ml.transfer import TransferSchedule, transfer_step

META = torch.device("meta")
TASKS = list(DISTORTIONS)
SCHEDULE = TransferSchedule(steps=2, batch=2 * len(TASKS), crop=32)


class Valueless(Together):
    """Numbers that decide from the CPU, and noise without values."""

    @property
    def device(self) -> torch.device:
        return META

    def normal(self, images: Tensor) -> Tensor:
        assert images.device == META
        return torch.empty_like(images)

    def poisson(self, expected: Tensor) -> Tensor:
        assert expected.device == META
        return torch.empty_like(expected)


class OneDevice(TorchDispatchMode):
    """Every operation has all its tensors on one device, indices too, but for single numbers.

    What brings tensors to the device does not wait for it, and nothing brings any back.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.ndim > 0]
        devices = [str(tensor.device) for tensor in tensors]
        if name == "_to_copy" and kwargs.get("device") == META and devices == ["cpu"]:
            assert kwargs.get("non_blocking"), "waits for a copy"
        elif name == "copy_" and devices == ["meta", "cpu"]:
            assert kwargs.get("non_blocking") or args[2:] == (True,), "waits for a copy"
        elif name not in {"_to_copy", "copy_"} or devices == ["cpu", "meta"]:
            assert len(set(devices)) <= 1, f"{name}: {devices}"
        return func(*args, **kwargs)


class NoLists(TorchFunctionMode):
    """Nothing makes tensors of the device from lists, which torch waits for: neither values nor indices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func in {torch.tensor, torch.as_tensor} and kwargs.get("device") == META
        if made or (func is Tensor.new_tensor and args[0].device == META):
            raise AssertionError("values from a list")
        if func in {Tensor.__getitem__, Tensor.__setitem__} and args[0].device == META:
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(index, list) for index in indices), "an index from a list"
        return func(*args, **kwargs)


@pytest.fixture(autouse=True)
def _valueless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("ml.chance.Together", Valueless)
    monkeypatch.setattr("ml.chance.generator_on", lambda device, seed: Generator())
    for module in ("transfer", "finetune", "meta", "relation"):
        monkeypatch.setattr(f"ml.{module}.autocast", lambda on: nullcontext())  # There is none for `meta`.
    with NoLists(), OneDevice():  # type: ignore[no-untyped-call]  # It is torch's constructor.
        yield


@pytest.fixture
def images() -> list[Tensor]:
    sizes = ((80, 120), (99, 97), (200, 81))
    return [torch.empty(3, height, width, dtype=torch.uint8, device=META) for height, width in sizes]


@pytest.fixture(params=["vdsr", "dncnn"])
def network(request: pytest.FixtureRequest) -> SameSize:
    return build(request.param, 2, 0).to(META, non_blocking=True)


@pytest.mark.parametrize("name", TASKS)
def test_every_distortion_is_made_where_the_images_are(name: str, images: list[Tensor]) -> None:
    batch = auxiliary_batch(images, [name], 32, chance_of(0, "x", range(6), META))
    assert batch.clean.device == batch.distorted.device == META
    assert batch.clean.shape == batch.distorted.shape == (6, 3, 32, 32)
    assert batch.task.device.type == "cpu"


def test_images_that_are_not_at_hand_are_brought_there_as_crops(images: list[Tensor]) -> None:
    elsewhere = [torch.zeros(image.shape, dtype=torch.uint8) for image in images]
    assert auxiliary_batch(elsewhere, TASKS, 32, chance_of(0, "x", range(34), META)).distorted.device == META


@pytest.mark.parametrize("gamma", [torch.ones(len(TASKS)), torch.linspace(0, 1, len(TASKS))])
@pytest.mark.parametrize("chances", [None, torch.full((len(TASKS),), 1 / len(TASKS))])
def test_a_step_of_transfer_waits_for_nothing(
    gamma: Tensor, chances: Tensor | None, network: SameSize, images: list[Tensor]
) -> None:
    loss = transfer_step(network, SGD(network.parameters()), images, TASKS, gamma, SCHEDULE, 0, 1, chances)
    assert loss.device == META


def test_a_step_without_related_tasks_waits_for_nothing(network: SameSize, images: list[Tensor]) -> None:
    nothing = torch.zeros(len(TASKS))
    assert transfer_step(network, SGD(network.parameters()), images, TASKS, nothing, SCHEDULE, 0, 1).device == META


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_step_of_meta_learning_waits_for_nothing(order: Order, network: SameSize, images: list[Tensor]) -> None:
    gamma, meta = torch.linspace(0, 1, len(TASKS)), MetaSchedule(order=order)
    assert meta_step(network, SGD(network.parameters()), images, TASKS, gamma, SCHEDULE, meta, 0, 1).device == META


@pytest.mark.parametrize("loss", get_args(LossName))
def test_a_step_of_fine_tuning_waits_for_nothing(loss: LossName, network: SameSize, images: list[Tensor]) -> None:
    pairs = [TargetPair(f"{index}", image, image) for index, image in enumerate(images)]
    schedule = FinetuneSchedule(steps=2, batch=4, crop=32, loss=loss)
    assert finetune_step(network, SGD(network.parameters()), pairs, schedule, 0, 1).device == META


def test_an_episode_of_the_relation_network_waits_for_nothing(images: list[Tensor]) -> None:
    drn = DistortionRelationNetwork(DrnShape(width=1 / 32, kind_dim=8, memory_nodes=4)).to(META, non_blocking=True)
    large = [torch.empty(3, 100, 110, dtype=torch.uint8, device=META) for _ in images]
    assert drn_step(drn, SGD(drn.parameters()), large, TASKS, shots=1, seed=0, step=0).device == META


def test_what_would_wait_or_mix_is_seen(images: list[Tensor]) -> None:
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        float(images[0].float().mean())
    with pytest.raises(AssertionError, match=r"mm: .*cpu"):
        images[0][0].float() @ torch.ones(120, 4)
    with pytest.raises(AssertionError, match=r"index: .*cpu"):
        images[0][torch.tensor([0, 1])]
    with pytest.raises(AssertionError, match="waits for a copy"):
        torch.ones(3).to(META)
    with pytest.raises(AssertionError, match="waits for a copy"):
        torch.empty(3, device=META).copy_(torch.ones(3))
    with pytest.raises(AssertionError, match="values from a list"):
        images[0].new_tensor([1, 2])
    with pytest.raises(AssertionError, match="values from a list"):
        torch.tensor([1, 2], device=META)
    with pytest.raises(AssertionError, match="an index from a list"):
        images[0][:, [0, 1]]
