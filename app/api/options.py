"""Options that may stand in a form's fields or in the query."""

from collections.abc import Mapping

from starlette.datastructures import QueryParams

from app.core.errors import Unprocessable


def given_once(fields: Mapping[str, str], query: QueryParams) -> dict[str, str]:
    """What is given, from both, known or not; what is empty is not given.

    Raises Unprocessable for an option that the query gives twice, or otherwise than the body.
    """
    given = {name: value for name, value in fields.items() if value != ""}
    for name, value in asked_once(query).items():
        if given.setdefault(name, value) != value:
            raise Unprocessable("The option is given twice, in the query and in the body.", pointer=name)
    return given


def asked_once(query: QueryParams) -> dict[str, str]:
    """What the query gives, known or not. Raises Unprocessable for an option that it gives twice."""
    asked: dict[str, str] = {}
    for name, value in query.multi_items():
        if value == "":
            continue
        if name in asked:
            raise Unprocessable("The option is given twice in the query.", pointer=name)
        asked[name] = value
    return asked
