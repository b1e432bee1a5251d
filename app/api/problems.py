"""Every failure as a problem document (RFC 9457): one model, one handler for each way to fail, and their OpenAPI."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.openapi import allowed_methods
from app.api.schemas.wire import PATTERNS_IN_WORDS
from app.core.errors import (
    BadRequest,
    Conflict,
    FileLost,
    Forbidden,
    HeadersTooLarge,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    PairsCause,
    RequestTimeout,
    ServiceError,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from app.core.full_disk import is_disk_full

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
KINDS: Final[tuple[type[ServiceError], ...]] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    Conflict,
    FileLost,
    TooLarge,
    UnsupportedMedia,
    Unprocessable,
    TooManyRequests,
    HeadersTooLarge,
    ServiceError,
    Unavailable,
    StorageFull,
)
BACKEND_FAILURES: Final = (OperationalError, InterfaceError, PoolTimeout, OSError)  # of database or storage
BY_STATUS: Final = {kind.status: kind for kind in KINDS}


class RefusedFileOut(BaseModel):
    """An uploaded file that cannot be used."""

    name: str = Field(description="The name that the file was uploaded with.", examples=["003.png"])
    reason: str = Field(examples=["The file ends before its image does."])


class OffendingPart(BaseModel):
    """One part of the request that is wrong."""

    pointer: str = Field(
        description="A JSON pointer into the body, or the name of a query parameter, header or service.",
        examples=["/backbone"],
    )
    detail: str = Field(examples=["Input should be 'vdsr'"])


class Problem(BaseModel):
    """What went wrong (RFC 9457). `type` is stable and meant for programs, `detail` is meant for people."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["/problems/bad-pairs"])
    title: str = Field(examples=["The images do not form usable pairs"])
    status: int = Field(examples=[422])
    detail: str
    instance: str | None = Field(None, description="The path that was asked for.", examples=["/v1/jobs"])
    pointer: str | None = Field(None, description="The first offending part.", examples=["/name"])
    cause: PairsCause | None = Field(None, description="Of `bad-pairs`: what it is about them.", examples=["sizes"])
    errors: list[OffendingPart] | None = Field(None, description="Every offending part of the request.")
    files: list[RefusedFileOut] | None = Field(None, description="Every refused file.")


def problem_of(error: ServiceError) -> Problem:
    """The document that says what `error` means."""
    return Problem(
        type=f"/problems/{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        pointer=error.pointer,
        cause=error.cause,
        files=[RefusedFileOut(name=file.name, reason=file.reason) for file in error.files] or None,
    )


def answer(problem: Problem, path: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response that carries the document."""
    content = problem.model_copy(update={"instance": path}).model_dump(exclude_none=True)
    return JSONResponse(content, problem.status, headers, media_type=MEDIA_TYPE)


def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return answer(problem_of(error), request.url.path, {**error.headers, **retry})


def problem_of_status(status: int, detail: str) -> Problem:
    """The document for a refusal of which nothing but its status is known."""
    if (kind := BY_STATUS.get(status)) is not None:
        return problem_of(kind(detail))
    phrase = HTTPStatus(status).phrase
    return Problem(type=f"/problems/{phrase.lower().replace(' ', '-')}", title=phrase, status=status, detail=detail)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: unknown paths, wrong methods, unreadable or oversized bodies."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            detail = f"There is nothing at {request.url.path}."
        case 405:
            detail = f"{request.method} cannot be used here."
            if methods := allowed_methods(request.app, request.url.path):  # The framework names the first route's.
                headers["Allow"] = ", ".join(methods)
        case _:
            detail = error.detail
    return answer(problem_of_status(error.status_code, detail), request.url.path, headers)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found: Sequence[ErrorDetails] = error.errors()
    if found[0]["loc"][0] == "path":  # A malformed identifier names nothing.
        return answer(problem_of(NotFound(f"There is nothing at {request.url.path}.")), request.url.path)
    return answer(problem_of_validation(found), request.url.path)


def _bad_model(request: Request, error: Exception) -> JSONResponse:
    """A body that an endpoint validates itself, because it may come as JSON or as a form."""
    assert isinstance(error, InvalidBody)
    return answer(problem_of_validation(error.errors), request.url.path)


class InvalidBody(Exception):
    """A body does not fit its model."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__(str(error))
        self.errors: list[ErrorDetails] = [
            {**details, "loc": ("body", *details["loc"])} for details in error.errors(include_url=False)
        ]


def problem_of_validation(found: Sequence[ErrorDetails]) -> Problem:
    """One document for all that is invalid, each with a pointer to its place."""
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", found[0]["msg"])
        return problem_of(BadRequest(f"The body is not valid JSON: {reason}.", pointer=""))
    parts = [OffendingPart(pointer=_pointer(error["loc"]), detail=_in_words(error)) for error in found]
    said = "; ".join(f"{part.pointer or 'the body'}: {part.detail}" for part in parts)
    problem = problem_of(Unprocessable(f"The request is not valid. {said}.", pointer=parts[0].pointer))
    return problem.model_copy(update={"errors": parts})


def _in_words(error: ErrorDetails) -> str:
    """What is wrong with a part, for people; the framework's words where ours say no more."""
    match error["type"]:
        case "extra_forbidden":
            return "there is no such option"
        case "missing":
            return "it must be given"
        case "string_pattern_mismatch":
            return PATTERNS_IN_WORDS.get(error["ctx"]["pattern"], error["msg"])
        case "model_attributes_type":  # What is sent as another type is not read as JSON.
            return "a JSON object is needed, sent as application/json"
        case "value_error":  # Of ours, before which the framework puts what it is.
            return str(error["ctx"]["error"])
    return error["msg"]


def _pointer(location: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901) for a place in the body, the bare name for a parameter or header."""
    where, *path = location
    if where != "body":
        return str(path[0]) if path else str(where)
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _backend_error(request: Request, error: Exception) -> JSONResponse:
    log.error("the database or the storage failed", exc_info=error)
    where = "storage" if isinstance(error, OSError) else "database"
    if is_disk_full(error):
        full = StorageFull("The disk of the service is full. Nothing was kept; try again later.", pointer=where)
        return _service_error(request, full)
    refused = Unavailable(f"The {where} does not answer. Try again.", pointer=where, retry_after_s=5)
    return _service_error(request, refused)


def _client_gone(request: Request, error: Exception) -> JSONResponse:
    """Nobody reads this answer, and nothing has failed here."""
    return answer(problem_of(BadRequest("The client hung up in the middle of its request.")), request.url.path)


def unforeseen(path: str) -> JSONResponse:
    """The answer to a request that met an error of ours. The caller learns nothing of the inside.

    How much of the request has been read is not known, so the connection ends.
    """
    detail = "The service met an error that it did not expect. It has been logged."
    return answer(problem_of(ServiceError(detail)), path, {"Connection": "close"})


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    """What fails in the outermost middleware, outside of `app.api.unforeseen`. The server logs it."""
    return unforeseen(request.scope["path"])


def install(app: FastAPI) -> None:
    """Make every failure of `app` a problem document."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(InvalidBody, _bad_model)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    for backend_failure in BACKEND_FAILURES:
        app.add_exception_handler(backend_failure, _backend_error)
    app.add_exception_handler(Exception, _unforeseen)
    _document(app)


def _document(app: FastAPI) -> None:
    """Put the Problem schema into the OpenAPI document, in place of the framework's own for validation errors."""
    framework_document = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = framework_document()
        schemas = document["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"), Problem=problem)
        for framework_schema in ("HTTPValidationError", "ValidationError"):
            schemas.pop(framework_schema, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                if MEDIA_TYPE not in operation["responses"].get("422", {}).get("content", {MEDIA_TYPE: None}):
                    del operation["responses"]["422"]  # A malformed path is a 404 here, and documented as such.
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation names


SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}


def problems(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` for the ways in which an operation may fail, each with an example."""
    responses: dict[int | str, dict[str, Any]] = {}
    possible: set[type[ServiceError]] = {*kinds, Unavailable, ServiceError}
    for kind in sorted(possible, key=lambda kind: (kind.status, kind.code)):
        example = problem_of(kind(f"{kind.title}: what and why, in plain words."))
        response = responses.setdefault(
            kind.status,
            {"description": kind.title, "content": {MEDIA_TYPE: {"schema": SCHEMA, "examples": {}}}},
        )
        examples = response["content"][MEDIA_TYPE]["examples"]
        examples[kind.code] = {"summary": kind.title, "value": example.model_dump(exclude_none=True)}
        if kind.title not in response["description"]:
            response["description"] += f"; or: {kind.title}"
    return responses
