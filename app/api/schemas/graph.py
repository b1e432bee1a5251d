"""The relation graph."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api import examples
from app.api.schemas.wire import Reported


class Guidance(Reported):
    """How the tasks' weights came about.

    The job's options; `prefer` is `likeness` too where the tasks were not assessed: the prior has no experts.
    """

    prefer: Literal["transferability", "likeness"] = "likeness"
    by: Literal["weight", "sample"]
    temperature: float | None = None
    top_k: int | None = None


class GraphFacts(Reported):
    target: str = Field(description="The id of the target's node.")
    metric: str = Field(description="What γ is: `cosine`, or `l1` or `l2` with a prior of such edges.")
    verdict: Literal["related", "unrelated"] = Field(description="Whether γ may prefer some auxiliary tasks.")
    fallback: Literal["low", "flat", "areas", "displaced"] | None = Field(
        None,
        description="Why it may not: γ is below 0.2 for every task (`low`), or differs by less than 0.1 between them "
        "(`flat`); whole `areas` are changed, or the content is `displaced`.",
    )
    in_areas: float | None = Field(None, description="Share of the difference that is in the means of whole areas.")
    displaced: float | None = Field(None, description="Share of the difference that a displacement explains.")
    guidance: Guidance | None = Field(
        None, description="How the tasks' weights were made; null where the relation guides no transfer."
    )
    sentence: str = Field(description="What the graph says, in plain words.")
    prior: str = Field(description="The version of the prior whose distortions are compared with.")
    ranking: list[str] = Field(description="Auxiliary distortions by falling γ.")
    projection: str


class GraphNode(Reported):
    """A distortion. γ and what follows from it belong to auxiliary nodes only."""

    id: str
    kind: Literal["auxiliary", "target"]
    x: float
    y: float
    psnr_db: float = Field(description="Mean strength of the distortion.")
    gamma: float | None = Field(None, description="How alike it and the target are, by `metric`.")
    gamma_std: float | None = Field(None, description="Its spread over the few-shot pairs.")
    gamma_min: float | None = None
    gamma_max: float | None = None
    gain_db: float | None = Field(
        None,
        description="What learning it promises: by how many dB a read-out of its expert improves your pairs, each by "
        "the others, at a first look. Null where the job does not learn from it, where its scheme is not guided, or "
        "where the prior has no expert.",
    )
    gain_db_std: float | None = Field(None, description="Its spread over the few-shot pairs.")
    rank: int | None = None
    selected: bool | None = Field(None, description="Whether the job learns from it: whether its weight is above 0.")
    weight: float | None = Field(
        None,
        description="Its share in the transfer; all sum to 1, or are 0 where the job makes none, as with `baseline` "
        "and `draft`. By `select` and `guidance`; alike for those of `select` where the scheme is not guided, or the "
        "target is `unrelated`.",
    )
    samples: list[tuple[float, float]] = Field([])


class GraphLink(Reported):
    source: str
    target: str
    cosine: float
    weight: float | None = Field(None, description="Of a link to the target: as of the auxiliary node.")


class GraphOut(BaseModel):
    """The relation graph in node-link form, as `networkx.node_link_graph` loads it; `edges` equals `links`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GRAPH]})

    directed: bool
    multigraph: bool
    graph: GraphFacts
    nodes: list[GraphNode]
    links: list[GraphLink]
    edges: list[GraphLink]
