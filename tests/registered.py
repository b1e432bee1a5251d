"""Models in the registry of a running service, without a training."""

import io
from typing import Any

from app.core.database import open_database, sessions
from app.core.folder_storage import FolderStorage
from app.core.tables import Dataset, Job, ModelAlias, ModelVersion
from tests.servers import RunningService

CARD: dict[str, Any] = {"backbone": "vdsr", "unshuffle": 2, "scale": 1, "licence": "CC0-1.0", "gamma": {"blur": 0.5}}


def model_file(**card: Any) -> bytes:
    """A model whose last layer is random, so that it changes images a little."""
    import torch  # Here, because other tests must be the first to import `ml`.

    from ml.backbones import build
    from ml.model_file import pack
    from tests.layers import convolution

    described = CARD | card
    network = build(described["backbone"], described["unshuffle"], seed=0)
    with torch.no_grad():
        convolution(network, -1).weight.normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    return pack(network, described)


def register(service: RunningService, name: str, weights: bytes, **card: Any) -> None:
    """As a job that has succeeded would."""
    blob = FolderStorage(service.data_dir / "blobs").put(io.BytesIO(weights))
    engine = open_database(f"sqlite:///{service.data_dir / 'drtl.sqlite3'}")
    with sessions(engine).begin() as session:
        dataset = Dataset(scale=1, pairs=[])
        session.add(dataset)
        session.flush()
        job = Job(name=name, dataset_id=dataset.id, options={"name": name}, state="succeeded")
        session.add(job)
        session.flush()
        session.add(ModelVersion(name=name, version=1, job_id=job.id, weights_blob=blob, card=CARD | card))
        session.add(ModelAlias(name=name, alias="production", version=1))
    engine.dispose()
