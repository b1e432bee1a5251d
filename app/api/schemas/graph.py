"""The relation graph."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api import examples
from app.api.schemas.wire import Reported


class GraphFacts(Reported):
    target: str = Field(description="The id of the target's node.")
    metric: str = Field(description="What γ is: `cosine`, or `l1` or `l2` with a prior of such edges.")
    verdict: Literal["related", "unrelated"]
    fallback: str | None = Field(
        None,
        description="Why no distortion is preferred, where the verdict is `unrelated`: `low` γ for all of them, whole "
        "`areas` changed, or the content `displaced`.",
    )
    in_areas: float | None = Field(None, description="Share of the difference that is in the means of whole areas.")
    displaced: float | None = Field(None, description="Share of the difference that a displacement explains.")
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
    rank: int | None = None
    selected: bool | None = Field(None, description="Whether the job learns from it; see its option `select`.")
    weight: float | None = Field(
        None, description="γ clamped at 0 and normalised to sum 1 over those that are selected; 0 for the others."
    )
    samples: list[tuple[float, float]] = Field([])


class GraphLink(Reported):
    source: str
    target: str
    cosine: float


class GraphOut(BaseModel):
    """The relation graph in node-link form, as `networkx.node_link_graph` loads it; `edges` equals `links`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GRAPH]})

    directed: bool
    multigraph: bool
    graph: GraphFacts
    nodes: list[GraphNode]
    links: list[GraphLink]
    edges: list[GraphLink]
