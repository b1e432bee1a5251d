"""Where images are kept, and how a batch is taken apart."""

import pytest
import torch

from ml.pairs import TargetPair, pairs_at_hand
from ml.placement import at_hand, by_value, has_room_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
IMAGE = torch.zeros(3, 10, 10, dtype=torch.uint8)  # 300 bytes


def test_images_may_take_a_quarter_of_what_is_free_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda on: (1200, 9999))
    assert has_room_for(CUDA, 300)
    assert not has_room_for(CUDA, 301)
    assert has_room_for(CPU, 2**60)


def test_images_without_room_on_the_device_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda on: (1200, 9999))
    pair = TargetPair("pair", IMAGE, IMAGE)
    assert [image.device for image in at_hand(CUDA, [IMAGE, IMAGE])] == [CPU, CPU]
    assert pairs_at_hand(CUDA, [pair]) == [pair]


def test_places_of_each_value_are_in_order() -> None:
    assert list(by_value(["noise", "blur", "noise"])) == [("blur", [1]), ("noise", [0, 2])]
