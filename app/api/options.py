"""Options that may stand in a form's fields or in the query."""

from collections.abc import Mapping

from app.core.errors import Unprocessable


def given_once(fields: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    """What is given, from both, known or not; what is empty is not given.

    Raises Unprocessable for an option that is given twice.
    """
    asked = {name: value for name, value in query.items() if value != ""}
    given = {name: value for name, value in fields.items() if value != ""}
    for name, value in asked.items():
        if given.setdefault(name, value) != value:
            raise Unprocessable("The option is given twice, in the query and in the body.", pointer=name)
    return given
