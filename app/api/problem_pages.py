"""`/problems/{code}`: what the `type` of a problem document points at."""

from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.api.problems import problems
from app.core.errors import BadPairs, NotFound, ServiceError

router = APIRouter(tags=["problems"])


class ProblemType(BaseModel):
    """A way in which requests can fail."""

    type: str = Field(description="The `type` member of such problems.")
    title: str
    status: int = Field(description="The status that such answers have.")
    meaning: str = Field(description="When it happens.")
    remedy: str = Field(description="What to do about it.")


def described(kind: type[ServiceError]) -> ProblemType:
    """What the error says of itself."""
    return ProblemType(
        type=f"/problems/{kind.code}",
        title=kind.title,
        status=kind.status,
        meaning=kind.meaning,
        remedy=kind.remedy,
    )


PROBLEM_TYPE: Final = {"content": {"application/json": {"example": described(BadPairs).model_dump()}}}


@router.get("/problems/{code}", responses={**problems(NotFound), 200: PROBLEM_TYPE})
def get_problem_type(code: Annotated[str, Path(examples=["bad-pairs"])]) -> ProblemType:
    """What a problem's `type` points at: when it happens, and what to do about it."""
    kind = next((kind for kind in _below(ServiceError) if kind.code == code), None)
    if kind is None:
        raise NotFound(f"There is no problem type {code!r}.")
    return described(kind)


def _below(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _below(narrower)
