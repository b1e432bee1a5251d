"""Every query over datasets, models, operations and jobs that is not a transition; none commits.

What a session may see is its view's affair (`app.core.owners`), so that no query here asks for it. Names of models are
each owner's own: where a session sees more than one owner's, `namespace` says whose is meant.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from sqlalchemy import Select, select, union, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core.errors import NameTaken, NotFound
from app.core.owners import view_of
from app.core.tables import (
    ACTIVE,
    Batch,
    Dataset,
    Job,
    JobEvent,
    ModelAlias,
    ModelVersion,
    Operation,
    Pair,
)

DEFAULT_ALIAS = "production"
ALIASES = ModelAlias.metadata.tables[ModelAlias.__tablename__]
T = TypeVar("T")


def get_dataset(session: Session, dataset_id: str, *, hold: bool = False) -> Dataset:
    """Raises NotFound. With `hold` nobody else changes, deletes or comes to name it before the transaction ends."""
    found = session.get(Dataset, dataset_id, with_for_update=hold or None, populate_existing=hold)
    return _found(found, f"There is no dataset {dataset_id}.")


def get_job(session: Session, job_id: str, *, hold: bool = False) -> Job:
    """As `get_dataset`."""
    found = session.get(Job, job_id, with_for_update=hold or None, populate_existing=hold)
    return _found(found, f"There is no job {job_id}.")


def get_operation(session: Session, operation_id: str) -> Operation:
    return _found(session.get(Operation, operation_id), f"There is no operation {operation_id}.")


def get_batch(session: Session, batch_id: str) -> Batch:
    return _found(session.get(Batch, batch_id), f"There is no batch {batch_id}.")


def _found(row: T | None, detail: str) -> T:
    if row is None:
        raise NotFound(detail)
    return row


def list_datasets(session: Session, limit: int, after: str | None) -> Sequence[Dataset]:
    """Newest first; `after` is the last id of the page before."""
    query = select(Dataset).order_by(Dataset.id.desc()).limit(limit)
    return session.scalars(query.where(Dataset.id < after) if after is not None else query).all()


def list_jobs(session: Session, limit: int, after: str | None, state: str | None) -> Sequence[Job]:
    """Newest first; `after` is the last id of the page before."""
    query = select(Job).order_by(Job.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Job.id < after)
    if state is not None:
        query = query.where(Job.state == state)
    return session.scalars(query).all()


def list_operations(session: Session, limit: int, after: str | None, state: str | None) -> Sequence[Operation]:
    """Newest first; `after` is the last id of the page before."""
    query = select(Operation).order_by(Operation.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Operation.id < after)
    if state is not None:
        query = query.where(Operation.state == state)
    return session.scalars(query).all()


def list_batches(session: Session, limit: int, after: str | None) -> Sequence[Batch]:
    """Newest first; `after` is the last id of the page before."""
    query = select(Batch).order_by(Batch.id.desc()).limit(limit)
    return session.scalars(query.where(Batch.id < after) if after is not None else query).all()


def batch_operations(session: Session, batch_id: str, after: int = -1, limit: int | None = None) -> Sequence[Operation]:
    """The operations of a batch in their order, those behind position `after`."""
    query = select(Operation).where(Operation.batch_id == batch_id, Operation.position > after)
    return session.scalars(query.order_by(Operation.position).limit(limit)).all()


def list_events(session: Session, job_id: str, after: int, limit: int) -> Sequence[JobEvent]:
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after)
    return session.scalars(query.order_by(JobEvent.id).limit(limit)).all()


def require_free_name(session: Session, name: str, *, new_version: bool) -> None:
    """Raise NameTaken where the owner has a model or an unfinished job of the name; `new_version` allows the former."""
    owner = view_of(session).owner
    making = select(Job.id).where(Job.owner == owner, Job.name == name, Job.state.in_(ACTIVE))
    if session.scalar(making.limit(1)) is not None:
        raise NameTaken(f"A job that has not finished is already making a model named {name!r}.", pointer="/name")
    made = select(ModelVersion.version).where(ModelVersion.owner == owner, ModelVersion.name == name)
    if not new_version and session.scalar(made.limit(1)):
        detail = f"A model named {name!r} exists. Choose another name, or set new_version to add a version to it."
        raise NameTaken(detail, pointer="/name")


def list_models(session: Session, limit: int, after: str | None) -> Sequence[str]:
    """Model names in alphabetical order; a name that several owners have is there once."""
    query = select(ModelVersion.name).distinct().order_by(ModelVersion.name).limit(limit)
    return session.scalars(query.where(ModelVersion.name > after) if after is not None else query).all()


def namespace(session: Session, name: str) -> str:
    """Whose model a name means: one's own, or else, to those who see everything, the first owner's that has it."""
    view = view_of(session)
    if not view.sees_all:
        return view.owner
    owners = session.scalars(
        select(ModelVersion.owner).where(ModelVersion.name == name).distinct().order_by(ModelVersion.owner)
    ).all()
    return view.owner if view.owner in owners or not owners else owners[0]


def model_versions(session: Session, name: str) -> Sequence[ModelVersion]:
    """All versions, newest first. Raises NotFound where there is none."""
    query = select(ModelVersion).where(ModelVersion.owner == namespace(session, name), ModelVersion.name == name)
    query = query.order_by(ModelVersion.version.desc())
    versions = session.scalars(query).all()
    if not versions:
        raise NotFound(f"There is no model named {name!r}.")
    return versions


def model_aliases(session: Session, name: str) -> dict[str, int]:
    query = select(ModelAlias).where(ModelAlias.owner == namespace(session, name), ModelAlias.name == name)
    rows = session.scalars(query.order_by(ModelAlias.alias))
    return {row.alias: row.version for row in rows}


def get_model_version(session: Session, name: str, version: int) -> ModelVersion:
    model = session.get(ModelVersion, (namespace(session, name), name, version))
    if model is None:
        model_versions(session, name)  # An unknown name and an unknown version are different mistakes.
    return _found(model, f"Model {name!r} has no version {version}.")


def resolve_model(session: Session, name: str, reference: str | None) -> ModelVersion:
    """The version behind `name`, `name@alias` or `name@version`; without a reference, the promoted one."""
    if reference is not None and reference.isdecimal():
        return get_model_version(session, name, int(reference))
    owner = namespace(session, name)
    query = _aliased(reference or DEFAULT_ALIAS).where(ModelVersion.owner == owner, ModelVersion.name == name)
    if (model := session.scalar(query)) is not None:
        return model
    model_versions(session, name)
    if reference is not None:
        raise NotFound(f"Model {name!r} has no alias {reference!r}.")
    raise NotFound(
        f"No version of model {name!r} is promoted: its training brought no gain over the input. "
        f"Address a version by its number ({name}@1) to use it all the same."
    )


def promoted_models(session: Session) -> Sequence[ModelVersion]:
    """The version in production of every model of the owner that has one, by name: what `auto` chooses from."""
    own = _aliased(DEFAULT_ALIAS).where(ModelVersion.owner == view_of(session).owner)
    return session.scalars(own.order_by(ModelVersion.name)).all()


def _aliased(alias: str) -> Select[ModelVersion]:
    same = (ModelAlias.owner == ModelVersion.owner) & (ModelAlias.name == ModelVersion.name)
    this = same & (ModelAlias.version == ModelVersion.version)
    return select(ModelVersion).join(ModelAlias, this).where(ModelAlias.alias == alias)


def set_alias(session: Session, name: str, alias: str, version: int) -> ModelAlias:
    """Point the alias at a version of the model. Raises NotFound where there is no such version."""
    owner = get_model_version(session, name, version).owner
    # Held, for it may be deleted in this moment, and aliases are deleted with what they point at.
    this = (ModelVersion.owner == owner, ModelVersion.name == name, ModelVersion.version == version)
    held = session.scalar(select(ModelVersion.version).where(*this).with_for_update(read=True, key_share=True))
    _found(held, f"Model {name!r} has no version {version}.")
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(ALIASES).values(owner=owner, name=name, alias=alias, version=version)
    moved = row.on_conflict_do_update(index_elements=["owner", "name", "alias"], set_={"version": version})
    session.execute(moved)  # Made or deleted by others in this moment, it is met all the same.
    return session.get_one(ModelAlias, (owner, name, alias), populate_existing=True)


def note_onnx_export(
    session: Session, name: str, version: int, *, blob: str | None = None, error: str | None = None
) -> None:
    """Note how an export ended, with a file or with a reason; without both, forget that reason.

    A file that is there stays, whoever comes second.
    """
    owner = namespace(session, name)
    this = (ModelVersion.owner == owner, ModelVersion.name == name, ModelVersion.version == version)
    session.execute(
        update(ModelVersion).where(*this, ModelVersion.onnx_blob.is_(None)).values(onnx_blob=blob, onnx_error=error)
    )


def forget_onnx(session: Session, name: str, version: int, blob: str) -> None:
    """Let the version have no file, if it is this one that it has."""
    this = (ModelVersion.owner == namespace(session, name), ModelVersion.name == name, ModelVersion.version == version)
    session.execute(update(ModelVersion).where(*this, ModelVersion.onnx_blob == blob).values(onnx_blob=None))


BLOB_COLUMNS: Final = (
    Pair.clean_blob,
    Pair.distorted_blob,
    Job.checkpoint_blob,
    Job.preview_blob,
    ModelVersion.weights_blob,
    ModelVersion.onnx_blob,
    Operation.input_blob,
    Operation.output_blob,
    Operation.trust_blob,
)


def referenced_blobs(session: Session) -> set[str]:
    """Every blob that some row names."""
    names = session.scalars(union(*(select(column).where(column.is_not(None)) for column in BLOB_COLUMNS)))
    return {name for name in names if name is not None}
