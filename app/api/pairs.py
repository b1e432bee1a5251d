"""Forms pairs from uploaded files, and has each examined: can it be trained on, and what would make it better?"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from app.api.deps import Services
from app.api.examiners import Examined, Refused
from app.api.file_names import is_plain, with_side
from app.api.schemas.datasets import Fix, PairOut
from app.api.uploads import Spool, UploadedFile
from app.core.errors import BadPairs, RefusedFile
from app.core.settings import Settings
from app.doctor.report import mark_duplicates


@dataclass(frozen=True)
class FilePair:
    """A clean image with its distorted version, not yet opened."""

    name: str
    clean: UploadedFile
    distorted: UploadedFile


@dataclass(frozen=True)
class ExaminedPair:
    """A pair as it is to be stored, with the report that its owner sees."""

    files: FilePair
    scale: int
    report: dict[str, Any]


def pair_up(files: Sequence[UploadedFile], settings: Settings) -> list[FilePair]:
    """Pair by file stem; by order where no stem of one side occurs on the other.

    Raises BadPairs, naming every file without a partner or with a name that is taken.
    """
    clean = [file for file in files if file.field == "clean"]
    distorted = [file for file in files if file.field == "distorted"]
    strange = [file for file in files if file.field not in {"clean", "distorted"}]
    refused = [_refused(file, "The file is in neither `clean` nor `distorted`.") for file in strange]
    refused += [_refused(file, reason) for file in clean + distorted if (reason := _bad_name(file.name))]
    refused += [*_twice(clean, "clean"), *_twice(distorted, "distorted")]
    if refused:
        raise BadPairs("The files cannot be paired.", cause="names", pointer=refused[0].name, files=refused)

    by_stem = {_stem(file): file for file in clean}
    common = [file for file in distorted if _stem(file) in by_stem]
    if common or len(clean) != len(distorted):
        stems = {_stem(file) for file in distorted}
        alone = [_refused(file, "It has no clean partner.") for file in distorted if file not in common]
        alone += [_refused(file, "It has no distorted partner.") for file in clean if _stem(file) not in stems]
        if common and alone:
            said = "Some files have no partner of the same name."
            raise BadPairs(said, cause="names", pointer=alone[0].name, files=alone)
        if alone:
            counts = f"{len(clean)} clean and {len(distorted)} distorted files"
            said = f"There are {counts}, and no two share a name."
            raise BadPairs(said, cause="names", pointer=alone[0].name, files=alone)
        pairs = [FilePair(_stem(file), by_stem[_stem(file)], file) for file in distorted]
    else:
        pairs = [FilePair(_stem(one), one, other) for one, other in zip(clean, distorted, strict=True)]
    if not settings.min_pairs <= len(pairs) <= settings.max_pairs:
        found = "There is 1 pair" if len(pairs) == 1 else f"There are {len(pairs)} pairs"
        raise wrong_count(found, settings)
    return sorted(pairs, key=lambda pair: pair.name) if common else pairs


def wrong_count(found: str, settings: Settings) -> BadPairs:
    accepted = f"between {settings.min_pairs} and {settings.max_pairs} are accepted."
    return BadPairs(f"{found}; {accepted}", cause="count")


def _refused(file: UploadedFile, reason: str) -> RefusedFile:
    return RefusedFile(with_side(file.field, file.name), reason)


def _stem(file: UploadedFile) -> str:
    return PurePosixPath(file.name.replace("\\", "/")).stem


def _bad_name(name: str) -> str | None:
    if not is_plain(name) or len(name) > 255:
        return "The name has characters that cannot be seen, or more than 255 of them."
    return None


def _twice(files: Sequence[UploadedFile], side: str) -> Iterable[RefusedFile]:
    count = Counter(map(_stem, files))
    for file in files:
        if count[_stem(file)] > 1:
            yield _refused(file, f"{count[_stem(file)]} {side} files have the name {_stem(file)!r}.")


def examine(
    pairs: Sequence[FilePair], services: Services, spool: Spool, fixes: Collection[Fix] = ()
) -> list[ExaminedPair]:
    """Have every pair examined and, with `fixes`, those mended that need one of them.

    Raises the error of the refused files where they share one, BadPairs where they differ, always naming all.
    """

    def one(pair: FilePair) -> Examined | Refused:
        try:
            return services.examiners.examine(pair.clean, pair.distorted, fixes, spool)
        except Refused as refused:
            return refused

    with ThreadPoolExecutor(services.examiners.count) as threads:
        answers = list(threads.map(one, pairs))
    refusals = [
        (_refused(pair.clean if side == "clean" else pair.distorted, reason), kind)
        for pair, answer in zip(pairs, answers, strict=True)
        if isinstance(answer, Refused)
        for side, reason, kind in answer.refusals
    ]
    if refusals:
        kinds = {kind for _, kind in refusals}
        files = [file for file, _ in refusals]
        said = f"{files[0].name}: {files[0].reason}" if len(files) == 1 else f"{len(files)} files cannot be used."
        if kinds == {BadPairs}:
            raise BadPairs(said, cause="sizes", pointer=files[0].name, files=files)
        kind = kinds.pop() if len(kinds) == 1 else BadPairs
        raise kind(said, pointer=files[0].name, files=files)
    examined = [
        _with_originals(pair, answer)
        for pair, answer in zip(pairs, answers, strict=True)
        if isinstance(answer, Examined)
    ]
    _require_one_scale(examined)
    mark_duplicates([pair.files.name for pair in examined], [pair.report for pair in examined])
    return examined


def _with_originals(pair: FilePair, answer: Examined) -> ExaminedPair:
    """The pair as it will be stored; of a mended one the report names the files it was made of."""
    report, files = answer.report, pair
    if answer.fixed is not None:
        files = FilePair(pair.name, *answer.fixed)
        report["fixed"]["originals"] = {"clean": pair.clean.sha256, "distorted": pair.distorted.sha256}
    return ExaminedPair(files, report["scale"], report)


def _require_one_scale(examined: Sequence[ExaminedPair]) -> None:
    common = Counter(pair.scale for pair in examined).most_common(1)[0][0]
    others = [pair for pair in examined if pair.scale != common]
    if others:
        files = [
            _refused(pair.files.distorted, f"Its scale is {pair.scale}, that of most others {common}.")
            for pair in others
        ]
        said = "All pairs of a dataset must have the same scale."
        raise BadPairs(said, cause="sizes", pointer=files[0].name, files=files)


def require_trainable(pairs: Sequence[PairOut]) -> None:
    """Raise BadPairs, naming each pair that the doctor rejects."""
    rejects = [RefusedFile(pair.name, pair.note) for pair in pairs if pair.verdict == "reject"]
    if rejects:
        said = f"{rejects[0].name}: {rejects[0].reason}" if len(rejects) == 1 else f"{len(rejects)} pairs are rejected."
        detail = f"{said} Leave them out, mend them (`fix`), or insist with `allow_rejects`."
        raise BadPairs(detail, cause="rejected", pointer=rejects[0].name, files=rejects)
