"""Blobs as objects in a bucket of anything that speaks the S3 API.

A blob is any object named `<first two of KEY>/<KEY>.<random>`; the random part is never used again. Of several copies
of one blob the newest counts. So nothing that a sweep removes can be what somebody has stored again meanwhile: that
has another name (docs/adr/0020-object-storage.md). It needs listings that show what was written before, as S3's do.
"""

import email.utils
import errno
import hashlib
import io
import itertools
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from app.core.storage import CHUNK_BYTES, StorageDown, StoredFile

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

PART_BYTES: Final = 8 * 2**20  # Of an upload in parts; at most 10,000 of them, so 80 GB.
READ_BYTES: Final = 4 * 2**20  # Fetched at a time, and held, by whoever reads.
READ_ATTEMPTS: Final = 4
COPY: Final = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})(?:\.[0-9a-f]{16})?")  # Without a random part: copied by hand.
PROBE: Final = "probe"
GONE: Final = {"NoSuchKey", "NoSuchUpload", "404"}
FULL: Final = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}


@dataclass(frozen=True)
class _Copy:
    """One object that holds a blob. `age_s` is by the server's clock, when it was listed."""

    name: str
    key: str
    size: int
    modified: datetime
    age_s: float


@dataclass(frozen=True)
class _BrokenUpload:
    """An upload in parts that has neither been completed nor given up; it may still go on."""

    name: str
    upload_id: str
    age_s: float


class ObjectStorage:
    """Blobs in one bucket, below one prefix. Safe to use from many threads; not to be carried across a fork.

    Endpoint, region, credentials and certificates come from where every S3 client looks: `AWS_*` environment variables,
    `~/.aws`, or the machine's role. Everything may raise StorageDown, beside what `Storage` says.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/".lstrip("/")
        session = Session()
        self._client = _client(session, connect_s=5.0, read_s=30.0, attempts=4)
        self._probing = _client(session, connect_s=2.0, read_s=3.0, attempts=1)  # Readiness is asked every few seconds.

    def put(self, stream: BinaryIO, *, durable: bool = True) -> str:
        with _rereadable(stream) as content:
            key, size = _measured(content)
            name = f"{self.prefix}{key[:2]}/{key}.{secrets.token_hex(8)}"
            parts = _parts(content, key)
            if size > PART_BYTES:
                self._put_parts(name, parts)
            else:
                body = b"".join(parts)
                with _asking("store a blob"):
                    self._client.put_object(Bucket=self.bucket, Key=name, Body=body)
        return key

    def _put_parts(self, name: str, parts: Iterator[bytes]) -> None:
        """Store in parts, which become an object together or not at all."""
        with _asking("begin an upload"):
            upload_id = self._client.create_multipart_upload(Bucket=self.bucket, Key=name)["UploadId"]
        stored: list[Any] = []
        try:
            for number, part in enumerate(parts, start=1):
                with _asking("store a part of a blob"):
                    answer = self._client.upload_part(
                        Bucket=self.bucket, Key=name, UploadId=upload_id, PartNumber=number, Body=part
                    )
                stored.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._complete(name, upload_id, stored)
        except FileNotFoundError as error:
            raise StorageDown("the storage has forgotten an upload that was going on") from error
        except BaseException:
            with suppress(OSError):
                self._abort(name, upload_id)
            raise

    def _complete(self, name: str, upload_id: str, parts: list[Any]) -> None:
        try:
            with _asking("complete an upload"):
                self._client.complete_multipart_upload(
                    Bucket=self.bucket, Key=name, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
        except FileNotFoundError:
            # Where the answer to a first try was lost, the second finds the upload gone, and the object there.
            if not any(self._copies(name)):
                raise

    def _abort(self, name: str, upload_id: str) -> None:
        with suppress(FileNotFoundError), _asking("give up an upload"):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=upload_id)

    def make_durable(self, key: str) -> None:
        self._newest(key)

    def open(self, key: str) -> BinaryIO:
        copy = self._newest(key)
        return io.BufferedReader(_Reader(self, copy), max(1, min(READ_BYTES, copy.size)))

    def read(self, copy: _Copy, start: int, stop: int) -> bytes:
        """The bytes from `start` until before `stop`. Raises FileNotFoundError where this copy is gone."""
        content = self._read_whole(copy.name, f"bytes={start}-{stop - 1}")
        if len(content) != stop - start:
            raise StorageDown(f"the storage answers {len(content)} bytes where {stop - start} were asked for")
        return content

    def _read_whole(self, name: str, stretch: str) -> bytes:
        for left in reversed(range(READ_ATTEMPTS)):
            with _asking("read a blob"):
                body = self._client.get_object(Bucket=self.bucket, Key=name, Range=stretch)["Body"]
            try:
                with _asking("read a blob"):
                    return body.read()
            except StorageDown:  # The client tries requests again, but not answers that break off.
                if not left:
                    raise
                time.sleep(0.2)
        raise AssertionError("unreachable")

    def newer(self, copy: _Copy) -> _Copy:
        """Where the blob of a copy that is gone is now. Raises FileNotFoundError."""
        return self._newest(copy.key)

    def delete(self, key: str) -> None:
        for copy in self._copies(f"{self.prefix}{key[:2]}/{key}"):
            self._remove(copy.name)

    def sweep(self, keep: AbstractSet[str], grace_s: float) -> int:
        began = time.monotonic()

        def is_older(age_s: float) -> bool:
            """Whether it was older than that when the sweep began: what is younger may be missing in `keep`."""
            return age_s - (time.monotonic() - began) > grace_s

        removed = 0
        # Listings are sorted by name, so that the copies of a blob follow each other.
        for key, group in itertools.groupby(self._copies(self.prefix), lambda copy: copy.key):
            *superseded, newest = sorted(group, key=_recency)
            unwanted = superseded if key in keep or not is_older(newest.age_s) else [*superseded, newest]
            for copy in unwanted:
                self._remove(copy.name)
            removed += len(unwanted)
        for upload in self._broken_uploads():
            if is_older(upload.age_s):
                self._abort(upload.name, upload.upload_id)
                removed += 1
        return removed

    def inventory(self) -> Iterator[StoredFile]:
        for copy in self._copies(self.prefix):
            yield StoredFile(copy.key, copy.size, copy.age_s)
        for upload in self._broken_uploads():
            with suppress(FileNotFoundError), _asking("list the parts of an upload"):
                pages = self._client.get_paginator("list_parts").paginate(
                    Bucket=self.bucket, Key=upload.name, UploadId=upload.upload_id
                )
                size = sum(part["Size"] for page in pages for part in page.get("Parts", []))
                yield StoredFile(None, size, upload.age_s)

    def check(self) -> None:
        """Begin an upload and give it up: that shows the right to write, and leaves nothing, not even a version."""
        name = f"{self.prefix}{PROBE}"
        with _asking("begin an upload"):
            begun = self._probing.create_multipart_upload(Bucket=self.bucket, Key=name)
            self._probing.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=begun["UploadId"])

    def _newest(self, key: str) -> _Copy:
        copies = list(self._copies(f"{self.prefix}{key[:2]}/{key}"))
        if not copies:
            raise FileNotFoundError(errno.ENOENT, "there is no such blob", key)
        return max(copies, key=_recency)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError), _asking("remove a blob"):
            self._client.delete_object(Bucket=self.bucket, Key=name)

    def _copies(self, names_from: str) -> Iterator[_Copy]:
        """Every object whose name begins so and is that of a blob, in the order of their names."""
        with _asking("list blobs"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=names_from):
                now = _server_time(page)
                for found in page.get("Contents", []):
                    if match := COPY.fullmatch(found["Key"].removeprefix(self.prefix)):
                        modified = found["LastModified"]
                        age_s = (now - modified).total_seconds()
                        yield _Copy(found["Key"], match[1], found["Size"], modified, age_s)

    def _broken_uploads(self) -> Iterator[_BrokenUpload]:
        # Some servers (rclone's) answer 404 where there are none.
        with suppress(FileNotFoundError), _asking("list uploads"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                now = _server_time(page)
                for found in page.get("Uploads", []):
                    short = found["Key"].removeprefix(self.prefix)
                    if short == PROBE or COPY.fullmatch(short):
                        age_s = (now - found["Initiated"]).total_seconds()
                        yield _BrokenUpload(found["Key"], found["UploadId"], age_s)


class _Reader(io.RawIOBase):
    """A blob, fetched a stretch at a time: whoever reads slowly holds no connection meanwhile."""

    def __init__(self, storage: ObjectStorage, copy: _Copy) -> None:
        self._storage, self._copy, self._at = storage, copy, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed wants any Buffer
        content = self._fetch(min(self._at + len(buffer), self._copy.size))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        whole = bytearray()
        while chunk := self._fetch(min(self._at + READ_BYTES, self._copy.size)):
            whole += chunk
        return bytes(whole)

    def _fetch(self, stop: int) -> bytes:
        if stop <= self._at:
            return b""
        try:
            content = self._storage.read(self._copy, self._at, stop)
        except FileNotFoundError:
            # This copy has been removed because there is a newer one of the same bytes.
            self._copy = self._storage.newer(self._copy)
            content = self._storage.read(self._copy, self._at, stop)
        self._at = stop
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._copy.size}[whence]
        if origin + offset < 0:
            raise OSError("seek before the start of the file")
        self._at = origin + offset
        return self._at

    def tell(self) -> int:
        return self._at


def _client(session: Session, *, connect_s: float, read_s: float, attempts: int) -> "S3Client":
    has_endpoint = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
    client = session.create_client(
        "s3",
        region_name=region,
        config=Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=64,
            # Every server that checks signatures then also checks that the content has arrived as it was sent.
            s3={"payload_signing_enabled": True, "addressing_style": "path" if has_endpoint else "auto"},
            # Which newer ways to send checksums a server knows is different from one to the next.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    return cast("S3Client", client)


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Give the library's errors the meanings that `Storage` knows."""
    try:
        yield
    except ClientError as error:
        answer = error.response.get("Error", {})
        code, message = answer.get("Code", ""), answer.get("Message", "")
        if code in GONE:
            raise FileNotFoundError(errno.ENOENT, f"cannot {what}: {code}") from error
        if code in FULL or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 507:
            raise OSError(errno.ENOSPC, f"cannot {what}: {code}") from error
        raise StorageDown(f"cannot {what}: {code}: {message}") from error
    except BotoCoreError as error:
        raise StorageDown(f"cannot {what}: {error}") from error


@contextmanager
def _rereadable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream, or a copy of it on disk where it can be read only once: a blob's name is known only at its end."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(stream, spool, CHUNK_BYTES)
        spool.seek(0)
        yield spool


def _measured(content: BinaryIO) -> tuple[str, int]:
    """SHA-256 and number of the bytes from here to the end; the position stays."""
    start, size, digest = content.tell(), 0, hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    content.seek(start)
    return digest.hexdigest(), size


def _parts(content: BinaryIO, key: str) -> Iterator[bytes]:
    """The bytes from here to the end. Raises OSError at the end where they are not those of the key after all."""
    digest = hashlib.sha256()
    while part := content.read(PART_BYTES):
        digest.update(part)
        yield part
    if digest.hexdigest() != key:
        raise OSError("the file has changed while it was stored")


def _recency(copy: _Copy) -> tuple[datetime, str]:
    """Times are whole seconds with some servers; names decide then, so that all sweeps keep the same copy."""
    return copy.modified, copy.name


def _server_time(page: Any) -> datetime:
    """When the server sent this answer: ages by two clocks would be wrong by their difference."""
    said = page["ResponseMetadata"]["HTTPHeaders"].get("date")
    return email.utils.parsedate_to_datetime(said) if said else datetime.now(UTC)
