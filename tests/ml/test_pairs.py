"""Pairs as uploaded: decoded, enlarged, divided."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ml.distortions.resampling import resize
from ml.images import decode, from_uint8, to_uint8
from ml.metrics import ssim
from ml.pairs import MEASURED_SIDE, SHORTEST_SIDE, PairFile, TargetPair, as_sent, decode_pairs, digest, enlarge, split

PairFiles = Callable[..., list[PairFile]]


def numbered(index: int, height: int, width: int) -> TargetPair:
    """A pair whose every column has its own colour in the first two channels, and its index in the third."""
    columns = torch.arange(width)
    image = torch.stack([columns % 256, columns // 256, torch.full_like(columns, index)]).to(torch.uint8)
    image = image[:, None].expand(3, height, width).contiguous()
    return TargetPair(f"p{index}", image, image.clone())


def columns_of(pair: TargetPair) -> set[int]:
    row = pair.clean[:, 0].int()
    return set((row[0] + 256 * row[1]).tolist())


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_pairs_leave_with_equal_sizes_and_their_scale(pair_files: PairFiles, scale: int) -> None:
    pairs, found = decode_pairs(pair_files(2, 53, 49, scale=scale))
    assert found == scale
    for pair in pairs:
        assert pair.clean.shape == pair.distorted.shape == (3, 53 * scale, 49 * scale)
        assert pair.clean.dtype == pair.distorted.dtype == torch.uint8


def test_pairs_of_one_size_are_not_resampled(pair_files: PairFiles) -> None:
    (file,) = pair_files(1, sigma=0)
    ((pair,), _) = decode_pairs([file])
    assert torch.equal(pair.clean, pair.distorted)


def test_enlargement_is_bicubic() -> None:
    image = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    difference = from_uint8(enlarge(image, 3)) - resize(from_uint8(image), 27, 21)
    assert float(difference.abs().max()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparent_pairs_become_colour_pairs(pair_files: PairFiles, mode: str) -> None:
    pairs, _ = decode_pairs(pair_files(2, mode=mode))
    assert all(pair.clean.shape[0] == 3 for pair in pairs)
    if mode == "L":
        assert torch.equal(pairs[0].clean[0], pairs[0].clean[2])


@pytest.mark.parametrize("scale", [1, 2])
def test_what_nobody_sees_is_alike_in_both(scale: int) -> None:
    def file(side: int, hidden: tuple[int, int, int]) -> bytes:
        pixels = np.full((side, side, 4), 255, np.uint8)
        pixels[:, : side // 2] = 10, 20, 30, 255
        pixels[:, side // 2 :] = *hidden, 0
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    pair = PairFile("a", file(64 * scale, (0, 0, 0)), file(64, (255, 255, 255)))
    ((decoded,), found) = decode_pairs([pair])
    assert found == scale
    assert torch.equal(decoded.clean[:, :, 32 * scale :], decoded.distorted[:, :, 32 * scale :])
    assert torch.equal(decoded.distorted[:, 0, 0], torch.tensor([10, 20, 30], dtype=torch.uint8))


def test_pairs_whose_sizes_do_not_fit_are_named(pair_files: PairFiles) -> None:
    good, other = pair_files(1), pair_files(1, 80, 71)
    mixed = PairFile("holiday", good[0].clean, other[0].distorted)
    with pytest.raises(ValueError, match="holiday"):
        decode_pairs([mixed])
    swapped = PairFile("swapped", pair_files(1, 50, 60)[0].clean, pair_files(1, 50, 60, scale=2)[0].clean)
    with pytest.raises(ValueError, match="swapped"):
        decode_pairs([swapped])
    transposed = PairFile("turned", pair_files(1, 50, 60)[0].clean, pair_files(1, 60, 50)[0].distorted)
    with pytest.raises(ValueError, match="turned"):
        decode_pairs([transposed])


def test_pairs_of_different_scales_are_refused(pair_files: PairFiles) -> None:
    with pytest.raises(ValueError, match="scales differ"):
        decode_pairs(pair_files(1) + pair_files(1, scale=2))


def test_a_scale_beyond_four_is_refused(photographs: dict[str, Tensor], encoded: Callable[..., bytes]) -> None:
    image = photographs["coffee"]
    with pytest.raises(ValueError, match="scale of 5"):
        decode_pairs([PairFile("zoom", encoded(image[:, :100, :100]), encoded(image[:, :20, :20]))])


def test_a_pair_too_small_to_train_and_measure_on_is_refused(pair_files: PairFiles) -> None:
    with pytest.raises(ValueError, match="p0 is smaller than"):
        decode_pairs(pair_files(1, 80, SHORTEST_SIDE - 1))


def test_an_unreadable_file_is_named(pair_files: PairFiles) -> None:
    (file,) = pair_files(1)
    with pytest.raises(ValueError, match=r"p0: .*not a readable image"):
        decode_pairs([PairFile("p0", file.clean, file.distorted[:100])])


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        decode_pairs([])


@given(count=st.integers(4, 40), seed=st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_a_fifth_of_four_or_more_pairs_is_held_out_whole(count: int, seed: int) -> None:
    parts = split([numbered(index, 2, 3) for index in range(count)], seed)
    trained, measured = [p.name for p in parts.train], [p.name for p in parts.held_out]
    assert parts.protocol == "pairs"
    assert len(measured) == max(1, round(count / 5))
    assert sorted(trained + measured) == sorted(f"p{index}" for index in range(count))


def test_what_is_held_out_depends_on_the_seed_only() -> None:
    pairs = [numbered(index, 2, 3) for index in range(20)]
    chosen = [tuple(p.name for p in split(pairs, seed).held_out) for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) == 3


@given(count=st.integers(1, 3), width=st.integers(SHORTEST_SIDE, 700))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_fewer_than_four_pairs_are_halved_with_a_gap_that_nobody_sees(count: int, width: int) -> None:
    parts = split([numbered(index, 12, width) for index in range(count)], seed=0)
    assert parts.protocol == "halves"
    for train, measured in zip(parts.train, parts.held_out, strict=True):
        assert train.name == measured.name
        gap = min(columns_of(measured)) - max(columns_of(train)) - 1
        assert gap >= width // 16 - 1
        assert gap > 0
        assert len(columns_of(train)) > len(columns_of(measured)) > width / 4
        assert max(columns_of(measured)) == width - 1
        assert torch.equal(train.clean, train.distorted)


def test_the_smallest_allowed_pair_can_be_measured(pair_files: PairFiles) -> None:
    pairs, _ = decode_pairs(pair_files(2, SHORTEST_SIDE, SHORTEST_SIDE))
    for pair in split(pairs, 0).held_out:
        assert 0 < ssim(from_uint8(pair.distorted), from_uint8(pair.clean)) < 1


def test_large_images_are_measured_on_their_centre() -> None:
    pairs = [numbered(index, 4, 3000) for index in range(4)]
    (measured,) = split(pairs, 0).held_out
    assert columns_of(measured) == set(range(988, 988 + MEASURED_SIDE))
    tall = [TargetPair("t", p.clean.mT.contiguous(), p.distorted.mT.contiguous()) for p in pairs]
    assert split(tall, 0).held_out[0].clean.shape == (3, MEASURED_SIDE, 4)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 4])  # Strips of every pair are trained on, or whole pairs.
def test_training_images_as_sent_are_the_files_own_pixels(pair_files: PairFiles, scale: int, count: int) -> None:
    files = pair_files(count, 50, 60, scale=scale)
    pairs, found = decode_pairs(files)
    train = split(pairs, 0).train
    images = as_sent(files, train, found)
    assert len(images) == len(train)
    for pair, image in zip(train, images, strict=True):
        (file,) = [file for file in files if file.name == pair.name]
        whole = to_uint8(decode(file.distorted).pixels)
        width = pair.distorted.shape[2] // scale
        assert width == (60 if count == 4 else 60 * scale * 10 // 16 // scale)
        assert torch.equal(image, whole[:, :, :width])


def test_the_digest_tells_pairs_apart_by_name_content_and_order() -> None:
    files = [PairFile("a", b"one", b"two"), PairFile("b", b"three", b"four")]
    assert digest(files) == digest(list(files))
    others = [
        files[::-1],
        files[:1],
        [PairFile("a", b"one", b"two"), PairFile("c", b"three", b"four")],
        [PairFile("a", b"onet", b"wo"), files[1]],
        [PairFile("a", b"two", b"one"), files[1]],
    ]
    assert len({digest(files), *map(digest, others)}) == 6
