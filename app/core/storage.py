"""Blobs: bytes under the name of their own SHA-256, whole or absent."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import BinaryIO, Protocol

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredFile:
    """Something that the storage keeps: a blob by its key, or with the key None the part of a broken upload."""

    key: str | None
    size_bytes: int
    age_s: float


class StorageDown(OSError):
    """The storage does not answer, or refuses. What it holds may be whole, so nothing may be concluded from this."""


class Storage(Protocol):
    """Where blobs live. A key is the lowercase hexadecimal SHA-256 of the content.

    Any method may raise StorageDown, and OSError with ENOSPC or EDQUOT where there is no room.
    """

    def put(self, stream: BinaryIO, *, durable: bool = True) -> str:
        """Store the stream's remaining bytes, in memory that does not grow with them. Returns the key.

        The same bytes may be stored again at any time, which makes the blob young.
        A blob that is not `durable` yet may be damaged by a power cut, but by nothing less; `make_durable` mends that.
        """

    def make_durable(self, key: str) -> None:
        """Return when the blob would outlast a power cut. Raises FileNotFoundError."""

    def open(self, key: str) -> BinaryIO:
        """Open a blob for reading at any place, in memory that does not grow with it. Raises FileNotFoundError."""

    def delete(self, key: str) -> None:
        """Remove a blob; removing an absent one is not an error."""

    def sweep(self, keep: AbstractSet[str], grace_s: float) -> int:
        """Remove blobs and parts of broken uploads older than `grace_s` whose key is not in `keep`. Returns how many.

        `keep` must have been read just before. A blob that is stored again meanwhile stays, whoever dies when: so none
        is lost that a row has come to name within `grace_s` of being stored.
        """

    def inventory(self) -> Iterator[StoredFile]:
        """Every blob, and every part of an upload that did not end, in no order.

        A blob of which there are several copies comes several times. What comes or goes meanwhile may be missing.
        """

    def check(self) -> None:
        """Raise OSError unless blobs can be written now."""
