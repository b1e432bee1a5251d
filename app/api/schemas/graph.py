"""The relation graph."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api import examples
from app.api.schemas.wire import Reported


class GraphFacts(Reported):
    target: str = Field(description="The id of the target's node.")
    metric: str
    verdict: Literal["related", "unrelated"]
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
    gamma: float | None = Field(None, description="Cosine with the target's node.")
    gamma_std: float | None = Field(None, description="Its spread over the few-shot pairs.")
    gamma_min: float | None = None
    gamma_max: float | None = None
    rank: int | None = None
    weight: float | None = Field(None, description="γ clamped at 0 and normalised to sum 1.")
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
