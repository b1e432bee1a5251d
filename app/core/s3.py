"""A client of the S3 API: where it finds the server, how long it waits, and what its errors mean."""

import email.utils
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from app.core.storage import StorageDown

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

GONE: Final = {"NoSuchKey", "NoSuchUpload", "404"}
FULL: Final = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}


def connect(session: Session, *, connect_s: float, read_s: float, attempts: int) -> "S3Client":
    """A client that gives up connecting, and waiting for an answer, after so long, and asks so often."""
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
def asking(what: str) -> Iterator[None]:
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


def server_time(page: Any) -> datetime:
    """When the server sent this answer: ages by two clocks would be wrong by their difference."""
    said = page["ResponseMetadata"]["HTTPHeaders"].get("date")
    return email.utils.parsedate_to_datetime(said) if said else datetime.now(UTC)
