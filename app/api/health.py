"""`/healthz` and `/readyz`: is the process alive, and can it do its work?"""

import logging
from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app.api.deps import Services, ServicesDep
from app.api.problems import OffendingPart, answer, problem_of, problems
from app.api.schemas.service import Health, Readiness
from app.core import repository
from app.core.errors import Unavailable

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

NOT_READY: Final[dict[int | str, dict[str, Any]]] = problems(Unavailable)


@router.get("/healthz", responses=problems())
async def healthz() -> Health:
    """The process answers. It asks nobody else, and does not wait for a free thread."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses=NOT_READY)
def readyz(request: Request, services: ServicesDep) -> Readiness | JSONResponse:
    """Database, broker and storage answer; otherwise 503, and `errors` names those that do not."""
    checks: dict[str, Callable[[], None]] = {
        "database": lambda: check_database(services),
        "broker": services.queue.check,
        "storage": services.storage.check,
    }
    silent = []
    for name, check in checks.items():
        try:
            check()
        except (SQLAlchemyError, RedisError, OSError) as error:
            log.warning("not ready, %s: %s", name, error)
            # Anybody may ask. What the error says names hosts and users, and is for the log.
            silent.append(OffendingPart(pointer=name, detail=f"It cannot be used ({type(error).__name__})."))
    if not silent:
        return Readiness(status="ready", checks=dict.fromkeys(checks, "ok"))
    names = " and ".join(part.pointer for part in silent)
    problem = problem_of(Unavailable(f"Not ready: {names} cannot be used.", pointer=silent[0].pointer))
    return answer(problem.model_copy(update={"errors": silent}), request.url.path, {"Retry-After": "5"})


def check_database(services: Services) -> None:
    """Raise SQLAlchemyError unless the database answers and has been migrated."""
    with services.read_sessions() as session:
        repository.list_jobs(session, limit=1, after=None, state=None)
