"""One of everything that an owner can have, as rows and blobs."""

import io
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.api import examples
from app.core.owners import look_as
from app.core.storage import FolderStorage
from app.core.tables import (
    Batch,
    Dataset,
    IdempotencyKey,
    Job,
    JobEvent,
    ModelAlias,
    ModelVersion,
    Operation,
    Pair,
)
from tests.app.material import encoded, pixels

IMAGE = encoded(pixels())
GRAPH = {name: part for name, part in examples.GRAPH.items() if name != "edges"}


def fill(rows: sessionmaker[Session], storage: FolderStorage, owner: str, job_state: str = "running") -> dict[str, str]:
    """One of everything that an owner can have, as work would have left it; the values of paths that name it."""
    blob = storage.put(io.BytesIO(IMAGE))
    with rows.begin() as session:
        look_as(session, owner)
        pair = Pair(position=0, name="001", clean_blob=blob, distorted_blob=blob, report=report())
        dataset = Dataset(scale=1, pairs=[pair])
        session.add(dataset)
        session.flush()
        job = Job(
            name="scanner",
            dataset_id=dataset.id,
            options={"name": "scanner"},
            state=job_state,
            graph=GRAPH,
            preview_blob=blob,
            progress=0.5,
        )
        session.add(job)
        session.flush()
        session.add(JobEvent(job_id=job.id, kind="started", payload={"attempt": 1}))
        session.add(
            ModelVersion(
                name="scanner",
                version=1,
                job_id=job.id,
                weights_blob=blob,
                onnx_blob=blob,
                card=examples.VERSION["card"],
            )
        )
        session.add(ModelAlias(name="scanner", alias="production", version=1))
        batch = Batch(model="scanner", options={})
        session.add(batch)
        session.flush()
        operation = Operation(
            batch_id=batch.id,
            position=0,
            file_name="a.png",
            model_name="scanner",
            model_version=1,
            input_blob=blob,
            output_blob=blob,
            trust_blob=blob,
            options={"output": "png", "explain": True},
            state="succeeded",
            result=examples.OPERATION["facts"],
        )
        session.add_all([operation, IdempotencyKey(key="monday", fingerprint="f", made_id=job.id)])
        session.flush()
        return {
            "dataset_id": dataset.id,
            "position": "0",
            "side": "clean",
            "job_id": job.id,
            "name": "scanner",
            "model": "scanner",
            "version": "1",
            "alias": "production",
            "operation_id": operation.id,
            "batch_id": batch.id,
        }


def report() -> dict[str, Any]:
    """What the pair doctor says of a pair, as a dataset's row keeps it."""
    (pair,) = examples.DATASET["pairs"]
    return {name: value for name, value in pair.items() if name != "name"}
