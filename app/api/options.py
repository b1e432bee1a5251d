"""Options in the query, some of which may stand in a form's fields as well: what is misspelt is never ignored."""

from collections.abc import Container, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams

from app.api.auth import FOR_EVERYBODY, PrincipalDep
from app.api.problems import problems
from app.core.errors import Unprocessable

QUERY: Final = ParamTypes.query


async def known_options(request: Request, principal: PrincipalDep) -> None:
    """A dependency of every call: raises RequestValidationError for what the query asks for and the call does not know.

    Calls that take their options from a form as well look after them by themselves, since a body comes with a word of
    its own on them. Health and the like, which monitors ask in ways of theirs, take anything.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    if not request.query_params or route.path in FOR_EVERYBODY or reads_the_query_itself(route):
        return
    taken = get_flat_params(
        route.dependant
    )  # Those of a model of the query say of themselves nothing of where they are.
    known = {parameter.alias for parameter in taken if getattr(parameter.field_info, "in_", QUERY) is QUERY}
    unknown = [name for name in dict.fromkeys(request.query_params.keys()) if name not in known]
    if unknown:
        raise RequestValidationError([{"type": "extra_forbidden", "loc": ("query", name)} for name in unknown])


def reads_the_query_itself(route: APIRoute) -> bool:
    """Whether its query parameters are described by hand, because they may be fields of a form instead."""
    return "parameters" in (route.openapi_extra or {})


def document(app: FastAPI) -> None:
    """Say in the OpenAPI document that every call but those for everybody refuses options that it does not know."""
    plain_document = app.openapi
    (refusal,) = [response for status, response in problems(Unprocessable).items() if status == Unprocessable.status]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        described = plain_document()
        for path, calls in described["paths"].items():
            for call in calls.values() if path not in FOR_EVERYBODY else ():
                call["responses"].setdefault(str(Unprocessable.status), refusal)
                call["responses"] = dict(sorted(call["responses"].items()))
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation names


def given_once(fields: Mapping[str, str], query: QueryParams, known: Container[str]) -> dict[str, str]:
    """What is given, from both, known or not; what is known and empty is not given.

    Raises Unprocessable for an option that the query gives twice, or otherwise than the body.
    """
    given = {name: value for name, value in fields.items() if value != "" or name not in known}
    for name, value in asked_once(query, known).items():
        if given.setdefault(name, value) != value:
            raise Unprocessable("The option is given twice, in the query and in the body.", pointer=name)
    return given


def asked_once(query: QueryParams, known: Container[str] | None = None) -> dict[str, str]:
    """What the query gives, as above; without `known` all names are. Raises Unprocessable for what it gives twice."""
    asked: dict[str, str] = {}
    for name, value in query.multi_items():
        if value == "" and (known is None or name in known):
            continue
        if name in asked:
            raise Unprocessable("The option is given twice in the query.", pointer=name)
        asked[name] = value
    return asked
