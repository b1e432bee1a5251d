"""What an api holds that is to be attacked: something large, a job that goes on, a model."""

import io
import os

from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.tables import ModelVersion
from tests.app.possessions import fill
from tests.chaos.api_process import RunningApi
from tests.chaos.attacks import Target

LARGE_BYTES = 64 << 20


def target_on(running: RunningApi) -> Target:
    """Fill the api's database, and say where things are."""
    assert running.settings.blob_dir is not None
    storage = FolderStorage(running.settings.blob_dir)
    engine = open_database(running.settings.database_url)
    rows = sessions(engine)
    values = fill(rows, storage, "")
    with rows.begin() as session:
        model = session.get_one(ModelVersion, ("", "scanner", 1))
        model.weights_blob = storage.put(io.BytesIO(os.urandom(LARGE_BYTES)))
    engine.dispose()
    return Target(
        address=running.address,
        download="/v1/models/scanner/versions/1/weights",
        download_bytes=LARGE_BYTES,
        events=f"/v1/jobs/{values['job_id']}/events",
        model="scanner",
    )
