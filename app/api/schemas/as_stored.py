"""Options in an answer: as the row holds them, whichever release has written it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

TELLING: Final = ("title", "type", "description", "default", "examples", "required")


@dataclass(frozen=True)
class AsStored:
    """Lets a dict of options pass as it is, completed by the defaults of those that it lacks.

    A newer release knows options and values of which this one knows nothing, and both work on the same rows
    (docs/upgrades.md). So the schema describes what is known here, but neither lists values nor bounds them.
    """

    options: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._completed, handler(source))

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return described(self.options.model_json_schema(mode="serialization")) | {"additionalProperties": True}

    def _completed(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        known = self.options.model_fields.items()
        return {name: field.get_default() for name, field in known if not field.is_required()} | dict(stored)


def described(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the values that it lists as examples, and without bounds."""
    told = {word: schema[word] for word in TELLING if word in schema}
    if "enum" in schema:
        told["examples"] = schema["enum"]
    if "items" in schema:
        told["items"] = described(schema["items"])
    if "anyOf" in schema:
        told["anyOf"] = [described(choice) for choice in schema["anyOf"]]
    if "properties" in schema:
        told["properties"] = {name: described(each) for name, each in schema["properties"].items()}
    return told
