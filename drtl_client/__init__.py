"""A Python client of the DRTL service: few-shot pairs in, relation graph out, a model that restores the rest.

from drtl_client import Client

with Client() as client:
    job = client.jobs.create("my-pairs")
    for event in client.jobs.watch(job):
        print(event.kind, event.payload)
    client.models["my-pairs"].super_resolve("photo.png").save("restored.png")
"""

from drtl_client import errors, events, signatures
from drtl_client.client import AsyncClient, Client, find_service
from drtl_client.documents import (
    Batch,
    Dataset,
    Delivery,
    Job,
    ModelVersion,
    ModelVersions,
    Operation,
    Pair,
    Relation,
    Webhook,
)
from drtl_client.errors import DRTLError, Problem, Unreachable
from drtl_client.images import HowRestored, Restored
from drtl_client.models import AsyncModel, Model
from drtl_client.pairs import PairPaths, model_name, pairs_in

__all__ = [
    "AsyncClient",
    "AsyncModel",
    "Batch",
    "Client",
    "DRTLError",
    "Dataset",
    "Delivery",
    "HowRestored",
    "Job",
    "Model",
    "ModelVersion",
    "ModelVersions",
    "Operation",
    "Pair",
    "PairPaths",
    "Problem",
    "Relation",
    "Restored",
    "Unreachable",
    "Webhook",
    "errors",
    "events",
    "find_service",
    "model_name",
    "pairs_in",
    "signatures",
]
