"""A trained model at work: image file in, restored image file out, in memory that does not grow with the image."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ml.backbones import Part, SameSize
from ml.descriptor import Descriptor, describe
from ml.image_metadata import Metadata
from ml.image_reader import ImageReader, open_image
from ml.image_writer import MEDIA_TYPES, FileFormat, ImageCanvas, Output
from ml.match import Match, closeness, reference_in
from ml.model_file import unpack
from ml.precision import Arithmetic, Computed, Precision, compute, device, fastest, is_out_of_memory
from ml.tile import TileRestorer
from ml.tiling import OutOfMemory, Piece, RestoreTiles, RowBuffer, Rows, Span, grid_for, restore_bands
from ml.windows import WindowSampler

ACCELERATOR_TILES: Final = 8  # Of one image, through the network together; a CPU gains nothing by it.

# Runs a network: like `ml.precision.compute`, or something that shares the device among several images. The last
# argument tells whether this is all of the image.
Runner = Callable[[SameSize, Float[Tensor, "b 3 h w"], Part, Arithmetic, bool], Computed]


@dataclass(frozen=True)
class RestoreOptions:
    """How to restore an image, and how to write it.

    `outscale` is the final size relative to the input (None: the model's own scale), reached by a resize at the end.
    `ensemble` averages 8 symmetric runs; `explain` makes a trust map of their spread, at nine times the work.
    """

    output: FileFormat = "png"
    precision: Precision = "auto"
    outscale: float | None = None
    ensemble: Literal[1, 8] = 1
    explain: bool = False
    metadata: Literal["keep", "strip"] = "keep"
    quality: int | None = None


@dataclass(frozen=True)
class Restored:
    """What was made, and how. Seconds are those of reading, of the network, and of writing.

    `tiles` so many were restored, of `tile` pixels a side; where memory ran short meanwhile, the last and smallest.
    `fallback_tiles` of them were computed again in float32, since the arithmetic asked for could not hold them.
    """

    media_type: str
    width: int
    height: int
    depth: int
    tile: int
    tiles: int
    precision: Arithmetic
    fallback_tiles: int
    match: Match | None
    seconds: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """As JSON; of the match its score and what it means in words."""
        match = self.match
        said = {
            "match": match and match.score,
            "match_word": match and match.word,
            "match_note": match and match.sentence,
        }
        return asdict(self) | said


@dataclass
class Stages:
    """Where the time goes: seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "restore": 0.0, "encode": 0.0})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started


@dataclass(frozen=True)
class Restorer:
    """A model held ready on its device, with its card."""

    network: SameSize
    card: Mapping[str, Any]

    @property
    def scale(self) -> int:
        """How many times an image is enlarged."""
        return int(self.card["scale"])

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def restore_file(
        self,
        source: Path,
        target: Path,
        options: RestoreOptions = RestoreOptions(),
        *,
        trust: Path | None = None,
        run: Runner | None = None,
        after_tiles: Callable[[float], None] = lambda done: None,
    ) -> Restored:
        """Restore the image in `source` into `target`, and write the trust map into `trust` where one is asked for.

        `after_tiles` hears the share of the image that is done, 0…1, and may raise to stop; the files are then
        incomplete. Raises ValueError for what is no readable image and for what the output's format cannot hold,
        OutOfMemory where memory does not suffice for the smallest tile, NotFinite where the network makes no numbers.
        """
        stages = Stages()
        work = _Work(self.network, options.precision, run or compute_alone)
        with ExitStack() as stack:
            with stages.timed("decode"):
                image = stack.enter_context(open_image(source))
            height, width = image.height * self.scale, image.width * self.scale
            canvas = stack.enter_context(ImageCanvas(width, height, image.channels, image.depth, folder=target.parent))
            spread = (
                stack.enter_context(ImageCanvas(width, height, 1, 8, folder=target.parent)) if options.explain else None
            )
            sampler = WindowSampler(image.height, image.width)
            grid = grid_for(self.network.radius, self.network.align)
            restorer = TileRestorer(
                compute=work.tiles(whole=max(height, width) <= grid.side),
                size=(image.height, image.width),
                channels=image.channels,
                depth=image.depth,
                scale=self.scale,
                align=self.network.align,
                averaged=options.ensemble == 8,
                explained=options.explain,
            )
            rows = RowBuffer(_sampled(image, sampler, stages))
            count, side, fallbacks, opened = 0, grid.side, 0, stages.seconds["decode"]
            with stages.timed("restore"):
                at_once = ACCELERATOR_TILES if work.on.type != "cpu" else 1
                tiles = work.noting_fallbacks(restorer)
                for band in restore_bands(rows, (height, width), grid, tiles, at_once=at_once, after_tiles=after_tiles):
                    canvas.append(band.rows)
                    if spread is not None and band.spread is not None:
                        spread.append(band.spread)
                    count, side, fallbacks = count + band.tiles, band.side, fallbacks + band.fallback_tiles
            stages.seconds["restore"] -= stages.seconds["decode"] - opened  # Which goes on within.
            with stages.timed("encode"):
                size = _final_size(image, options.outscale) or (width, height)
                output = Output(options.output, options.quality, keep_metadata=options.metadata == "keep")
                canvas.save(target, output, image.metadata, size=size, check=lambda: after_tiles(1.0))
                if spread is not None and trust is not None:
                    spread.save(trust, Output("png"), Metadata(), size=size, is_light=False)
            return Restored(
                MEDIA_TYPES[options.output],
                *size,
                depth=8 if options.output in {"jpeg", "webp"} else image.depth,
                tile=side,
                tiles=count,
                precision=work.arithmetic,
                fallback_tiles=fallbacks,
                match=self._match(sampler),
                seconds={stage: round(seconds, 6) for stage, seconds in stages.seconds.items()},
            )

    def _match(self, sampler: WindowSampler) -> Match | None:
        reference, descriptor = reference_in(self.card), describe(sampler.windows())
        return closeness(reference, descriptor) if reference is not None and descriptor is not None else None


class _Work:
    """The network's share of one image: its arithmetic, and where that did not suffice."""

    def __init__(self, network: SameSize, precision: Precision, run: Runner) -> None:
        self.network = network
        self.on = next(network.parameters()).device
        self.arithmetic: Arithmetic = fastest(self.on) if precision == "auto" else precision
        self._run = run
        self._fell_back = False  # In any run for the tiles at hand; alpha and ensembles take several.

    def tiles(self, *, whole: bool) -> Callable[[Float[Tensor, "b 3 h w"], Part], Float[Tensor, "b 3 _ _"]]:
        def of_tiles(batch: Float[Tensor, "b 3 h w"], part: Part) -> Float[Tensor, "b 3 _ _"]:
            try:
                computed = self._run(self.network, batch, part, self.arithmetic, whole)
            except Exception as error:
                if is_out_of_memory(error):
                    raise OutOfMemory(str(error)) from error
                raise
            self._fell_back |= computed.fell_back
            return computed.result

        return of_tiles

    def noting_fallbacks(self, restore_tiles: RestoreTiles) -> RestoreTiles:
        """As `restore_tiles`, with whether pieces were computed again; all of a batch are where one has to be."""

        def restore(rows: RowBuffer, band: Span, columns: list[Span]) -> list[Piece]:
            self._fell_back = False
            pieces = restore_tiles(rows, band, columns)
            return [replace(piece, fallback_tiles=int(self._fell_back)) for piece in pieces]

        return restore


def compute_alone(
    network: SameSize, batch: Float[Tensor, "b 3 h w"], part: Part, arithmetic: Arithmetic, _whole: bool
) -> Computed:
    """The network at once, in this thread."""
    return compute(network, batch, part, arithmetic)


def _sampled(image: ImageReader, sampler: WindowSampler, stages: Stages) -> Callable[[int], Rows]:
    """Read rows, and keep what of them tells how close the image is to the model's."""
    top = 0

    def read(count: int) -> Rows:
        nonlocal top
        with stages.timed("decode"):
            rows = image.read_rows(count)
            sampler.add_rows(top, rgb(rows))
            top += len(rows)
        return rows

    return read


def rgb(rows: Rows) -> Float[Tensor, "3 h w"]:
    """The colours of rows of any kind in [0, 1], grey as three equal channels."""
    colours = rows[..., :3] if rows.shape[2] >= 3 else rows[..., :1]
    brightest = 255 if rows.dtype.itemsize == 1 else 65535
    return torch.from_numpy(colours.astype("float32")).permute(2, 0, 1).div(brightest).expand(3, -1, -1)


def describe_file(source: Path) -> Descriptor | None:
    """What a look at the image alone says of its distortion. Raises ValueError for what is no readable image."""
    with open_image(source) as image:
        sampler = WindowSampler(image.height, image.width)
        for top in range(0, image.height, ROWS_AT_ONCE):
            sampler.add_rows(top, rgb(image.read_rows(ROWS_AT_ONCE)))
        return describe(sampler.windows())


ROWS_AT_ONCE: Final = 256


def _final_size(image: ImageReader, outscale: float | None) -> tuple[int, int] | None:
    if outscale is None:
        return None
    return max(1, round(image.width * outscale)), max(1, round(image.height * outscale))


def load_restorer(path: Path) -> Restorer:
    """Load a model file for inference. Raises ValueError for a file that is none of ours."""
    network, card = unpack(path)
    return Restorer(network.to(device()), card)
