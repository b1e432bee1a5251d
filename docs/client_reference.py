"""The page of the client's reference, written out of its signatures and docstrings."""

import inspect
from typing import Any, Final

from drtl_client import Client, documents, errors, events, images
from drtl_client.methods import Resource
from drtl_client.models import Model

RESULTS: Final = (
    *(documents.Dataset, documents.Pair, documents.Job, documents.Relation, documents.ModelVersions),
    *(documents.ModelVersion, documents.Operation, documents.Batch, images.HowRestored, images.Restored),
    *(documents.Webhook, documents.Delivery, documents.Attempt),
)


def client_reference() -> str:
    """Every call of the client, what the calls return, and what they raise. Markdown."""
    made = Client("http://127.0.0.1:8000")
    parts = {f"client.{name}": part for name, part in vars(made).items() if isinstance(part, Resource)}
    lines = [
        "# Client reference",
        "",
        "Made from the package itself. [The guide](client.md) explains; this page lists. `AsyncClient` has the same",
        "calls: those that return a value are awaited, those that return an iterator are looped over with `async for`.",
        "",
        *section("Client", Client),
    ]
    for name, part in parts.items():
        lines += ["", f"## {name}", "", *paragraphs(type(part)), *methods(name, part)]
        if name == "client.models":
            lines += [
                "",
                '## client.models["name@version"]',
                "",
                *paragraphs(Model),
                *methods("model", made.models["x"]),
            ]
    lines += ["", "## What calls return"]
    for kind in RESULTS:
        lines += ["", f"### {kind.__name__}", "", *paragraphs(kind), "", *members(kind)]
    lines += ["", "## Events", "", "What `client.jobs.watch` yields.", ""]
    lines += [f"- `{kind.__name__}`: {first(kind)}" for kind in (events.Event, *events.BY_KIND.values())]
    lines += ["", "## Errors", "", "All are below `DRTLError`; those below `Problem` are the service's answers.", ""]
    lines += [f"- {place(kind)}{first(kind)}" for kind in below(errors.DRTLError)]
    made.close()
    return "\n".join(lines) + "\n"


def section(name: str, kind: type) -> list[str]:
    return [f"## {name}", "", "```python", f"{name}{signature(kind)}", "```", "", *paragraphs(kind)]


def methods(owner: str, part: Resource) -> list[str]:
    lines = []
    for name, method in inspect.getmembers(type(part), inspect.isfunction):
        if not name.startswith("_"):
            arguments = signature(getattr(part, name))
            lines += ["", f"### {owner}.{name}", "", "```python", f"{owner}.{name}{arguments}", "```", ""]
            lines += paragraphs(method)
    return lines


def members(kind: type) -> list[str]:
    names = [name for name in inspect.get_annotations(kind) if name not in {"raw", "ENDED"}]
    names += [name for name, value in vars(kind).items() if isinstance(value, property)]
    names += [f"{name}()" for name, value in vars(kind).items() if inspect.isfunction(value) and name[0] != "_"]
    return [", ".join(f"`{name}`" for name in names)]


def signature(function: Any) -> str:
    """The arguments without their types, which are long and in the editor anyway."""
    arguments = inspect.signature(function).parameters.values()
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in arguments]
    return str(inspect.Signature(bare))


def paragraphs(described: Any) -> list[str]:
    return (inspect.getdoc(described) or "").splitlines()


def first(kind: type) -> str:
    """The first line of the class's own documentation; an inherited one would be another's."""
    if kind.__doc__:
        return kind.__doc__.strip().splitlines()[0]
    if issubclass(kind, errors.Problem):
        return f"`/problems/{kind.code}`."
    return f"`{kind.kind}`." if issubclass(kind, events.Event) else ""


def below(kind: type) -> list[type]:
    return [each for child in kind.__subclasses__() for each in (child, *below(child))]


def place(kind: type) -> str:
    parent = kind.__mro__[1].__name__
    return f"`{kind.__name__}`{'' if parent == 'DRTLError' else f' (a `{parent}`)'}: "
