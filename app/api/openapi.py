"""What the framework cannot know of this service's OpenAPI document, put right before anybody reads it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI

FORMS: Final = frozenset({"multipart/form-data"})
METHODS: Final = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


def form(properties: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """The schema of a form that takes these fields and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False, **rules}


def install(app: FastAPI) -> None:
    """Correct the document of `app`, whoever else has a hand in it."""
    framework_document = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for operation in operations(framework_document()):
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = without_null(parameter["schema"])
                for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
                    if media_type in FORMS:
                        properties = media["schema"]["properties"]
                        without = {name: without_null(schema) for name, schema in properties.items()}
                        media["schema"] = {**media["schema"], "properties": without}
        return framework_document()

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation names


def operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from (operation for method, operation in item.items() if method in METHODS)


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of what is text on the wire, and so is left out instead of being null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if "anyOf" not in schema or len(choices) == len(schema["anyOf"]):
        return schema
    rest = {
        name: value for name, value in schema.items() if name != "anyOf" and not (name == "default" and value is None)
    }
    return {**choices[0], **rest} if len(choices) == 1 else {**rest, "anyOf": choices}


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """The methods that the document knows for a path."""
    for template, item in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
            return sorted(method.upper() for method in item if method in METHODS)
    return []
