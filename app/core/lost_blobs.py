"""What each kind of row is worth without its blob, and what is then done with the row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, select, true, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.tables import ENDED, Dataset, Job, ModelAlias, ModelVersion, Operation, Pair, utc_ago

BlobColumn = InstrumentedAttribute[Any]
EVERY: Final = true()
Mend = Callable[[Session, "Loss", Sequence[str]], None]


@dataclass(frozen=True)
class Loss:
    """Rows whose blob is missing or damaged: those with `where`, of those that name a blob in `column`."""

    column: BlobColumn
    what: str
    advice: str
    where: ColumnElement[bool] = EVERY
    mend: Mend | None = None  # is given blobs that are lost
    done: str = ""  # what `mend` does, in the past tense
    lossy: bool = False
    harmless: bool = False  # worth a note only


def _forget(session: Session, loss: Loss, blobs: Sequence[str]) -> None:
    """Let the rows name nothing; what is left of damaged blobs goes with the next sweep."""
    forgotten = update(loss.column.class_).where(loss.column.in_(blobs), loss.where).values({loss.column.key: None})
    session.execute(forgotten, execution_options={"synchronize_session": False})


def _remove_versions(session: Session, _loss: Loss, blobs: Sequence[str]) -> None:
    """Remove model versions with the aliases that point at them."""
    for model in session.scalars(select(ModelVersion).where(ModelVersion.weights_blob.in_(blobs))):
        same = (ModelAlias.owner == model.owner, ModelAlias.name == model.name, ModelAlias.version == model.version)
        session.execute(delete(ModelAlias).where(*same))
        session.delete(model)


def _remove_datasets(session: Session, loss: Loss, blobs: Sequence[str]) -> None:
    having = select(Pair.dataset_id).where(loss.column.in_(blobs))
    for dataset in session.scalars(select(Dataset).where(Dataset.id.in_(having), ~_IN_USE)):
        session.delete(dataset)


def _fail(session: Session, loss: Loss, blobs: Sequence[str]) -> None:
    """End operations as failed. Those that a worker holds are left to it."""
    failed = update(Operation).where(loss.column.in_(blobs), loss.where)
    failed = failed.values(
        {
            "state": "failed",
            "error_code": "file-lost",
            "error_message": "The service has lost the file. Please send the image again.",
            "finished_at": utc_ago(),
            loss.column.key: None,
        }
    )
    session.execute(failed, execution_options={"synchronize_session": False})


_IN_USE: Final = select(Job.id).where(Job.dataset_id == Dataset.id).exists()
_USED: Final = select(Job.id).where(Job.dataset_id == Pair.dataset_id).exists()
_WANTED: Final = select(Job.id).where(Job.dataset_id == Pair.dataset_id, Job.state.not_in(ENDED)).exists()


def _of_pairs(column: BlobColumn) -> tuple[Loss, ...]:
    side = column.key.removesuffix("_blob")
    what = f"{side} images of pairs"
    return (
        Loss(
            column,
            f"{what} of datasets that no job has used",
            "Restore the blobs from a backup, or remove the datasets.",
            where=~_USED,
            mend=_remove_datasets,
            done="datasets removed",
            lossy=True,
        ),
        Loss(
            column,
            f"{what} of jobs that have not ended",
            "Restore the blobs from a backup, or cancel these jobs: they will fail.",
            where=_WANTED,
        ),
        Loss(
            column,
            f"{what} of jobs that have ended",
            "Their models work; only training on these pairs again needs the blobs from a backup.",
            where=_USED & ~_WANTED,
            harmless=True,
        ),
    )


LOSSES: Final = (
    *_of_pairs(Pair.clean_blob),
    *_of_pairs(Pair.distorted_blob),
    Loss(Job.checkpoint_blob, "checkpoints", "Their jobs start anew.", mend=_forget, done="checkpoints forgotten"),
    Loss(Job.preview_blob, "previews of jobs", "Nothing depends on them.", mend=_forget, done="previews forgotten"),
    Loss(
        ModelVersion.weights_blob,
        "weights of models",
        "Restore the blobs from a backup. What cannot be restored can be removed from the registry.",
        mend=_remove_versions,
        done="model versions removed, with the aliases that pointed at them",
        lossy=True,
    ),
    Loss(
        ModelVersion.onnx_blob,
        "ONNX files of models",
        "They are made again when somebody asks for them.",
        mend=_forget,
        done="ONNX files forgotten",
    ),
    Loss(
        Operation.input_blob,
        "images that wait to be restored",
        "They would fail when their turn comes; end them now.",
        where=Operation.state == "queued",
        mend=_fail,
        done="operations ended as failed",
        lossy=True,
    ),
    Loss(
        Operation.input_blob,
        "images that are being restored",
        "Their worker has a copy, or will report the failure.",
        where=Operation.state.in_(("running", "cancelling")),
        harmless=True,
    ),
    Loss(
        Operation.input_blob,
        "images that came in and are done with",
        "Nothing needs them any more.",
        where=Operation.state.in_(ENDED),
        mend=_forget,
        done="inputs forgotten",
    ),
    Loss(
        Operation.output_blob,
        "restored images",
        "Whoever sent the images has to send them again; the operations can be marked as failed.",
        mend=_fail,
        done="operations marked as failed",
        lossy=True,
    ),
    Loss(
        Operation.trust_blob, "trust maps", "The restored images are there.", mend=_forget, done="trust maps forgotten"
    ),
)
