"""The page of the HTTP reference, written out of an OpenAPI document."""

import json
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def http_reference(openapi: Json) -> str:
    """Every call with its parameters, bodies and answers, then every schema. Markdown."""
    lines = [
        "# HTTP reference",
        "",
        "Made from the service's OpenAPI document, which is [beside this page](openapi.json) and at `/openapi.json` of",
        "every running service. [The guide](api.md) explains; this page lists.",
    ]
    operations = [
        (operation["tags"][0], method, path, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    for tag in dict.fromkeys(tag for tag, *_ in operations):
        lines += ["", f"## {tag.capitalize()}"]
        for _, method, path, operation in (each for each in operations if each[0] == tag):
            lines += ["", f"### {method.upper()} {path}", "", operation.get("description", operation["summary"])]
            lines += [*parameters(operation), *bodies(operation), *responses(operation)]
    lines += ["", "## Schemas"]
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        lines += ["", f"### {name}", *filter(None, ["", schema.get("description", "")]), *fields(schema)]
    return "\n".join(lines) + "\n"


def parameters(operation: Json) -> Iterator[str]:
    found = operation.get("parameters", [])
    if not found:
        return
    yield from ("", "| parameter | in | type | |", "|---|---|---|---|")
    for each in found:
        needed = "" if not each.get("required") else "needed. "
        said = each.get("description") or each["schema"].get("description", "")
        yield row(f"`{each['name']}`", each["in"], kind(each["schema"]), f"{needed}{said}{default(each['schema'])}")


def bodies(operation: Json) -> Iterator[str]:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content.get("schema", {})
        yield from ("", f"Body as `{media_type}`{'' if schema.get('properties') else ': ' + kind(schema)}")
        yield from fields(schema)


def responses(operation: Json) -> Iterator[str]:
    yield from ("", "| answer | |", "|---|---|")
    for status, response in operation["responses"].items():
        kinds = [f"`{media}`: {kind(said.get('schema', {}))}" for media, said in response.get("content", {}).items()]
        yield row(status, f"{response['description']}{' — ' if kinds else ''}{', '.join(kinds)}")


def fields(schema: Json) -> Iterator[str]:
    properties = schema.get("properties", {})
    if not properties:
        return
    needed = set(schema.get("required", ()))
    yield from ("", "| field | type | |", "|---|---|---|")
    for name, each in properties.items():
        mark = "" if name not in needed else "needed. "
        yield row(f"`{name}`", kind(each), f"{mark}{each.get('description', '')}{default(each)}")


def default(schema: Json) -> str:
    given = schema.get("default")
    return "" if given in (None, [], {}) else f" Default: `{json.dumps(given)}`."


def kind(schema: Json) -> str:
    """A schema in a few words, with links to those that have a name."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": alternatives}:
            return " or ".join(kind(each) for each in alternatives)
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {kind(items)}"
        case {"type": "string", "format": given}:
            return {"binary": "bytes", "date-time": "time"}.get(given, given)
        case {"type": given}:
            return str(given)
        case _:
            return "anything"


def row(*cells: str) -> str:
    """A line of a table; what would end a cell is escaped."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
