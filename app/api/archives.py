"""Unpacks a hostile zip of images into the request's spool: no path is followed, no promise believed."""

import io
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from app.api.file_names import is_plain
from app.api.uploads import FileSink, Spool, Upload, UploadedFile
from app.core.errors import RefusedFile, ServiceError, TooLarge
from app.core.full_disk import is_disk_full

ZIP: Final = "application/zip"
ZIP_TYPES: Final = (ZIP, "application/x-zip-compressed")
ARCHIVE_FIELD: Final = "archive"  # Of a form, for a zip instead of single files.
MAX_DIRECTORY_BYTES: Final = 1 << 20  # Of the archive's table of contents; thousands of entries.
MAX_RATIO: Final = 200  # Photographs hardly shrink; a flat PNG by some tens.
RATIO_MATTERS_BYTES: Final = 1 << 20
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
CHUNK_BYTES: Final = 1 << 16
JUNK_NAMES: Final = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class ArchiveRules:
    """What an archive may hold. `unusable` is the error for one that cannot be used, `too_many` that for a long one.

    `field_of` tells, by its path, as which form field an entry counts, or None where it has no business here, which
    `misplaced` says in words.
    """

    max_files: int
    max_file_bytes: int
    max_total_bytes: int
    unusable: type[ServiceError]
    too_many: Callable[[int], ServiceError]
    field_of: Callable[[PurePosixPath], str | None]
    misplaced: str = ""


class _ShortReads(io.RawIOBase):
    """The archive's file, which refuses to read a directory of arbitrary size into memory."""

    def __init__(self, file: BinaryIO, rules: ArchiveRules) -> None:
        self._file = file
        self._rules = rules

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise self._rules.unusable("The zip has too many entries.")
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def files_in(upload: Upload, rules: ArchiveRules) -> Sequence[UploadedFile]:
    """The files of the upload, or of the zip that it is, as its body or as its form's one file. Raises as `unpack`."""
    if upload.media_type in ZIP_TYPES or [file.field for file in upload.files] == [ARCHIVE_FIELD]:
        return unpack(upload.files[0], upload.spool, rules)
    return upload.files


def unpack(archive: UploadedFile, spool: Spool, rules: ArchiveRules) -> list[UploadedFile]:
    """The files of the archive, sorted by name.

    Raises `rules.unusable`, `rules.too_many` or TooLarge, naming every entry that is refused; OSError where the disk is
    full.
    """
    try:
        with archive.open() as file, zipfile.ZipFile(_ShortReads(file, rules)) as zipped:
            entries = _wanted(zipped, rules)
            return [_extract(zipped, entry, spool, rules) for entry in entries]
    except ServiceError:
        raise
    except OSError as error:
        if is_disk_full(error):  # Ours, on which the files are laid out.
            raise
        raise rules.unusable(f"The zip is damaged ({error}).", pointer=archive.name) from error
    except Exception as error:  # A hostile archive can make the reader raise anything
        raise rules.unusable(f"The zip is damaged ({error}).", pointer=archive.name) from error


def _wanted(zipped: zipfile.ZipFile, rules: ArchiveRules) -> list[zipfile.ZipInfo]:
    """The entries to unpack, after all that the directory tells has been found acceptable."""
    entries = [entry for entry in zipped.infolist() if not entry.is_dir() and not _junk(entry.filename)]
    refused = [RefusedFile(entry.filename, reason) for entry in entries if (reason := _refusal(entry, rules))]
    if refused:
        raise rules.unusable("The zip holds entries that are not accepted.", pointer=refused[0].name, files=refused)
    if len(entries) > rules.max_files:
        raise rules.too_many(len(entries))
    large = [entry.filename for entry in entries if entry.file_size > rules.max_file_bytes]
    if large:
        reason = f"The file unpacks to more than {rules.max_file_bytes} bytes."
        raise TooLarge(reason, pointer=large[0], files=[RefusedFile(name, reason) for name in large])
    if sum(entry.file_size for entry in entries) > rules.max_total_bytes:
        raise TooLarge(f"The zip unpacks to more than {rules.max_total_bytes} bytes.")
    return sorted(entries, key=lambda entry: entry.filename)


def _junk(name: str) -> bool:
    """Whether operating systems put the entry there rather than its owner."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in parts)
    return hidden or "__MACOSX" in parts or bool(parts and parts[-1].lower() in JUNK_NAMES)


def _refusal(entry: zipfile.ZipInfo, rules: ArchiveRules) -> str | None:
    """Why the entry is not accepted, judged by the directory alone."""
    # Not `entry.filename`: zipfile has cut that at the first NUL and has changed separators.
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not is_plain(name):
        return "The name points outside the archive or is not a plain relative path."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "The entry is a symbolic link."
    if entry.flag_bits & 0x1:
        return "The entry is encrypted."
    if entry.compress_type not in METHODS:
        return "The entry is compressed by another method than deflate."
    if entry.file_size > RATIO_MATTERS_BYTES and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        return f"The entry is compressed more than {MAX_RATIO}-fold, as no photograph is."
    if rules.field_of(PurePosixPath(name)) is None:
        return rules.misplaced
    return None


def _extract(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, spool: Spool, rules: ArchiveRules) -> UploadedFile:
    """Copy one entry to the spool. Whatever the directory declares, no more than one image's bytes are read."""
    field = rules.field_of(PurePosixPath(entry.filename))
    assert field is not None
    sink = FileSink(spool, field, entry.filename, rules.max_file_bytes)
    with zipped.open(entry) as file:
        while chunk := file.read(CHUNK_BYTES):
            sink.write(chunk)
    return sink.done()
