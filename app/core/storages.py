"""The storage that the settings name."""

from app.core.folder_storage import FolderStorage
from app.core.settings import Settings
from app.core.storage import Storage, StorageDown


def open_storage(settings: Settings) -> Storage:
    """The bucket of `blob_url`, or the folder `blob_dir` where that is empty. A bucket is not asked for anything yet.

    Raises StorageDown where what buckets need is not installed.
    """
    if not settings.blob_url:
        assert settings.blob_dir is not None
        return FolderStorage(settings.blob_dir)
    try:
        from app.core.object_storage import ObjectStorage  # An extra; and a folder need not wait for it to load.
    except ModuleNotFoundError as error:
        raise StorageDown(f"DRTL_BLOB_URL needs the extra s3: pip install 'drtl-service[s3]' ({error})") from error
    bucket, _, prefix = settings.blob_url.removeprefix("s3://").partition("/")
    return ObjectStorage(bucket, prefix)
