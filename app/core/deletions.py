"""What owners delete: rows go at once, in transactions that the caller commits; their blobs with the next sweep.

The order is that of what names what: model, job, dataset. Whatever still names a thing keeps it from being deleted.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from app.core import repository
from app.core.errors import Conflict, NotFound
from app.core.owners import view_of
from app.core.tables import ACTIVE, ENDED, Dataset, IdempotencyKey, Job, ModelAlias, ModelVersion

SHOWN: Final = 5  # Of the jobs that are in the way.
JOBS: Final = Job.metadata.tables[Job.__tablename__]  # All owners', whatever the session's view.


def delete_version(session: Session, name: str, version: int) -> None:
    """Forget a version, with the aliases that point at it. Raises NotFound."""
    owner = repository.get_model_version(session, name, version).owner
    if not _forget_versions(session, owner, name, ModelVersion.version == version):
        raise NotFound(f"Model {name!r} has no version {version}.")  # Others have deleted it in this moment.


def delete_model(session: Session, name: str) -> None:
    """Forget every version of a model, with its aliases. Raises NotFound, and Conflict while a job makes another.

    That version would bring back a name that its owner believes to be gone.
    """
    owner = repository.namespace(session, name)
    # Asked for first: a job that ends in this moment has its version among those that are found below.
    unfinished = select(Job.id).where(Job.owner == owner, Job.name == name, Job.state.in_(ACTIVE))
    making = session.scalar(unfinished.limit(1))
    repository.model_versions(session, name)
    if making is not None:
        raise Conflict(f"Job {making} has not ended and would add a version to {name!r}. Cancel it first.")
    if not _forget_versions(session, owner, name):
        raise NotFound(f"There is no model named {name!r}.")


def _forget_versions(session: Session, owner: str, name: str, *which: ColumnElement[bool]) -> bool:
    """Forget versions of the model, with the aliases that point at them. False where there is none any more."""
    own = (ModelVersion.owner == owner, ModelVersion.name == name)
    # Whoever lets an alias point at one of them is waited for. In one order, for several who delete at once.
    held = select(ModelVersion.version).where(*own, *which).order_by(ModelVersion.version).with_for_update()
    found = session.scalars(held).all()
    aliases = (ModelAlias.owner == owner, ModelAlias.name == name, ModelAlias.version.in_(found))
    session.execute(delete(ModelAlias).where(*aliases))
    session.execute(delete(ModelVersion).where(*own, ModelVersion.version.in_(found)))
    return bool(found)


def delete_job(session: Session, job_id: str) -> None:
    """Forget a job that has ended, with its events, the messages about it, and the key that it was ordered by.

    Raises NotFound, and Conflict while it has not ended or the version that it has made exists.
    """
    job = repository.get_job(session, job_id, hold=True)
    if job.state not in ENDED:
        raise Conflict(f"Job {job_id} has not ended. Cancel it first.")
    made = session.scalar(select(ModelVersion.version).where(ModelVersion.job_id == job_id))
    if made is not None:
        raise Conflict(f"Job {job_id} has made {job.name}@{made}, which exists. Delete that version first.")
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.made_id == job_id))
    session.execute(delete(Job).where(Job.id == job_id))  # Events and messages go with it, by their foreign keys.


def delete_dataset(session: Session, dataset_id: str) -> None:
    """Forget a dataset with its pairs. Raises NotFound, and Conflict while a job names it, whoever owns that."""
    # A job that comes to name it waits for the end of this transaction, and then does not find it.
    repository.get_dataset(session, dataset_id, hold=True)
    naming = session.execute(select(JOBS.c.id, JOBS.c.owner).where(JOBS.c.dataset_id == dataset_id)).all()
    if naming:
        view = view_of(session)
        seen = sorted(job.id for job in naming if view.sees_all or job.owner == view.owner)
        raise Conflict(f"Dataset {dataset_id} is named by {_told(seen, len(naming))}. Delete what names it first.")
    session.execute(delete(Dataset).where(Dataset.id == dataset_id))  # Pairs go with it, by their foreign key.


def _told(seen: Sequence[str], number: int) -> str:
    """Some of the jobs, and how many there are beside them; another owner's only as a number."""
    shown = seen[:SHOWN]
    beside = number - len(shown)
    if not shown:
        return f"{beside} of another owner's jobs"
    return ", ".join(shown) + (f" and {beside} more" if beside else "")
