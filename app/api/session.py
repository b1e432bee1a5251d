"""`POST /v1/session`: a ticket in a cookie, for what a browser fetches without headers (images, events, downloads)."""

from fastapi import APIRouter, Request, Response

from app.api.auth import COOKIE, PrincipalDep
from app.api.key_ring import TICKET_S, issue_ticket
from app.api.problems import problems
from app.api.schemas.service import SessionOut

router = APIRouter(prefix="/v1/session", tags=["keys"])


@router.post("", responses=problems())
async def begin_session(request: Request, response: Response, principal: PrincipalDep) -> SessionOut:
    """Get a cookie that stands in for the key on GET requests for an hour. Revoking the key ends it.

    An open service needs none, and sets none.
    """
    response.headers["Cache-Control"] = "no-store"
    if principal.key is None:
        return SessionOut(expires_in_s=None)
    response.set_cookie(
        COOKIE,
        issue_ticket(principal.key),
        max_age=TICKET_S,
        path="/v1",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return SessionOut(expires_in_s=TICKET_S)
