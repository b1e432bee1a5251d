"""Unpacks a hostile zip of pairs into the request's spool: no path is followed, no promise believed."""

import io
import stat
import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from app.api.uploads import FileSink, Spool, UploadedFile
from app.core.errors import BadPairs, RefusedFile, ServiceError, TooLarge
from app.core.settings import Settings

MAX_DIRECTORY_BYTES: Final = 1 << 20  # Of the archive's table of contents; thousands of entries.
MAX_RATIO: Final = 200  # Photographs hardly shrink; a flat PNG by some tens.
RATIO_MATTERS_BYTES: Final = 1 << 20
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SIDES: Final = ("clean", "distorted")
CHUNK_BYTES: Final = 1 << 16
JUNK_NAMES: Final = {"thumbs.db", "desktop.ini"}


class _ShortReads(io.RawIOBase):
    """The archive's file, which refuses to read a directory of arbitrary size into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise BadPairs("The zip has too many entries.")
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def unpack(archive: UploadedFile, spool: Spool, settings: Settings) -> list[UploadedFile]:
    """The images under `clean/` and `distorted/`, sorted by name, with their folder as the form field.

    Raises BadPairs or TooLarge, naming every entry that is refused.
    """
    try:
        with archive.open() as file, zipfile.ZipFile(_ShortReads(file)) as zipped:
            entries = _wanted(zipped, settings)
            return [_extract(zipped, entry, spool, settings) for entry in entries]
    except ServiceError:
        raise
    except Exception as error:  # A hostile archive can make the reader raise anything
        raise BadPairs(f"The zip is damaged ({error}).", pointer=archive.name) from error


def _wanted(zipped: zipfile.ZipFile, settings: Settings) -> list[zipfile.ZipInfo]:
    """The entries to unpack, after all that the directory tells has been found acceptable."""
    entries = [entry for entry in zipped.infolist() if not entry.is_dir() and not _junk(entry.filename)]
    refused = [RefusedFile(entry.filename, reason) for entry in entries if (reason := _refusal(entry))]
    if refused:
        raise BadPairs("The zip holds entries that are not accepted.", pointer=refused[0].name, files=refused)
    if len(entries) > 2 * settings.max_pairs:
        raise BadPairs(f"The zip holds {len(entries)} files; at most {settings.max_pairs} pairs are accepted.")
    large = [entry.filename for entry in entries if entry.file_size > settings.max_pair_bytes]
    if large:
        reason = f"The file unpacks to more than {settings.max_pair_bytes} bytes."
        raise TooLarge(reason, pointer=large[0], files=[RefusedFile(name, reason) for name in large])
    if sum(entry.file_size for entry in entries) > settings.max_upload_bytes:
        raise TooLarge(f"The zip unpacks to more than {settings.max_upload_bytes} bytes.")
    return sorted(entries, key=lambda entry: entry.filename)


def _junk(name: str) -> bool:
    """Whether operating systems put the entry there rather than its owner."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in parts)
    return hidden or "__MACOSX" in parts or bool(parts and parts[-1].lower() in JUNK_NAMES)


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    """Why the entry is not accepted, judged by the directory alone."""
    # Not `entry.filename`: zipfile has cut that at the first NUL and has changed separators.
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        return "The name points outside the archive or is not a plain relative path."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "The entry is a symbolic link."
    if entry.flag_bits & 0x1:
        return "The entry is encrypted."
    if entry.compress_type not in METHODS:
        return "The entry is compressed by another method than deflate."
    if entry.file_size > RATIO_MATTERS_BYTES and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        return f"The entry is compressed more than {MAX_RATIO}-fold, as no photograph is."
    if len(parts) < 2 or parts[-2].lower() not in SIDES:
        return "The file is in neither clean/ nor distorted/."
    return None


def _extract(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, spool: Spool, settings: Settings) -> UploadedFile:
    """Copy one entry to the spool. Whatever the directory declares, no more than one image's bytes are read."""
    side = PurePosixPath(entry.filename).parts[-2].lower()
    sink = FileSink(spool, side, entry.filename, settings.max_pair_bytes)
    with zipped.open(entry) as file:
        while chunk := file.read(CHUNK_BYTES):
            sink.write(chunk)
    return sink.done()
