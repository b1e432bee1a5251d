"""`/v1/models`: the registry of trained models, their versions and aliases."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from app.api import examples
from app.api.deps import LimitQuery, ReadSessionDep, SessionDep
from app.api.problems import problems
from app.api.schemas.models import AliasIn, AliasOut, ModelOut, VersionOut
from app.api.schemas.wire import LARGEST_INTEGER, NAME_PATTERN, ModelNamePath, Page
from app.core import deletions, repository
from app.core.errors import BadRequest, Conflict, NotFound, StorageFull, Unprocessable

router = APIRouter(prefix="/v1/models", tags=["models"])

VersionPath = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, examples=[1])]
# A name of digits only would be taken for a version.
AliasPath = Annotated[str, Path(pattern=r"^[a-z][a-z0-9._-]{0,62}$", examples=["production"])]


@router.get(
    "",
    responses={
        **problems(Unprocessable),
        200: {"content": {"application/json": {"example": {"items": [examples.MODEL], "next": None}}}},
    },
)
def list_models(
    session: ReadSessionDep,
    limit: LimitQuery = 20,
    after: Annotated[str | None, Query(pattern=NAME_PATTERN, description="The `next` of the page before.")] = None,
) -> Page[ModelOut]:
    """List models with their versions and aliases, by name."""
    names = repository.list_models(session, limit, after)
    return Page(items=[_model(session, name) for name in names], next=names[-1] if len(names) == limit else None)


@router.get("/{name}", responses=problems(NotFound))
def get_model(name: ModelNamePath, session: ReadSessionDep) -> ModelOut:
    """A model: its versions, and which aliases point at them."""
    return _model(session, name)


def _model(session: Session, name: str) -> ModelOut:
    versions = repository.model_versions(session, name)
    aliases = repository.model_aliases(session, name)
    numbers = [version.version for version in versions]
    return ModelOut(name=name, versions=numbers, aliases=aliases, created_at=versions[0].created_at)


@router.get("/{name}/versions/{version}", responses=problems(NotFound))
def get_version(name: ModelNamePath, version: VersionPath, session: ReadSessionDep) -> VersionOut:
    """One version with its card: data, γ, metrics, seed, prior, code and licence."""
    model = repository.get_model_version(session, name, version)
    return VersionOut.of(model, repository.model_aliases(session, name))


@router.put("/{name}/aliases/{alias}", responses=problems(BadRequest, NotFound, Unprocessable, StorageFull))
def put_alias(name: ModelNamePath, alias: AliasPath, target: AliasIn, session: SessionDep) -> AliasOut:
    """Point an alias at a version. Moving `production` changes what super-resolution uses by default."""
    row = repository.set_alias(session, name, alias, target.version)
    session.commit()
    return AliasOut.model_validate(row)


@router.delete("/{name}/versions/{version}", status_code=204, responses=problems(NotFound, StorageFull))
def delete_version(name: ModelNamePath, version: VersionPath, session: SessionDep) -> None:
    """Forget a version, and the aliases that point at it. Images that wait for it fail as `model-deleted`."""
    deletions.delete_version(session, name, version)
    session.commit()


@router.delete("/{name}", status_code=204, responses=problems(NotFound, Conflict, StorageFull))
def delete_model(name: ModelNamePath, session: SessionDep) -> None:
    """Forget all versions of a model, and its aliases. Refused while a job that has not ended would add another."""
    deletions.delete_model(session, name)
    session.commit()
