"""Draws a relation graph as SVG: the target among the known distortions, γ and gains ranked, and all cosines."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

WIDTH: Final = 1120
HEADER: Final = 136
MARGIN: Final = 36
GRAPH_WIDTH, GRAPH_BOTTOM = 620, 762.0
CENTRE_X, CENTRE_Y = 310.0, HEADER + 316.0
NEAR, FAR = 114.0, 240.0  # radii of γ = 1 and of γ ≤ 0
TARGET_RADIUS: Final = 34.0
RINGS: Final = (1.0, 0.75, 0.5, 0.25, 0.0)
LIKE: Final = 0.5  # Auxiliary distortions with a cosine above this are joined by a thin line.
# With more distortions than this, labels stand around the drawing instead of beside their nodes.
MOST_LABELS_WITHIN: Final = 10
CROWDED_NEAR, CROWDED_FAR, LABEL_RING = 120.0, 180.0, 194.0
LINE: Final = 14.0
LONG_NAME: Final = 15  # letters that fit beside a bar in the usual size
SMALLEST_ROW: Final = 20  # pixels of a row that takes a name in the usual size
BAR_ROW: Final = 25
BAR_LEFT, BAR_RIGHT = 770.0, 984.0
GAIN_LEFT, GAIN_RIGHT = 190.0, 450.0

# One accent in several strengths serves both colour schemes; `on` is what can be read on the accent itself.
STYLE: Final = """
.drtl { --paper: #ffffff; --ink: #17202a; --soft: #5d6b7a; --line: #dbe1e8; --panel: #f6f8fa;
  --accent: #0b6e8f; --on: #ffffff; --warm: #c2410c;
  font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  fill: var(--ink) }
@media (prefers-color-scheme: dark) {
  .drtl { --paper: #10161d; --ink: #e6edf3; --soft: #93a1b0; --line: #2b3642; --panel: #161e27;
    --accent: #4cc3e6; --on: #06222c; --warm: #fb923c } }
.drtl .paper { fill: var(--paper) } .drtl .panel { fill: var(--panel) }
.drtl .name { font-size: 21px; font-weight: 650 } .drtl .head { font-size: 13.5px; font-weight: 650 }
.drtl .sentence { font-size: 15px } .drtl .soft { fill: var(--soft) } .drtl .small { font-size: 11px }
.drtl .strong { font-weight: 600 } .drtl .number { font-variant-numeric: tabular-nums }
.drtl .ring { fill: none; stroke: var(--line) } .drtl .axis { stroke: var(--line) }
.drtl .kin { stroke: var(--soft) } .drtl .edge { stroke: var(--accent); stroke-linecap: round }
.drtl .pill { fill: var(--panel); stroke: var(--line) } .drtl .badge { fill: var(--accent) }
.drtl .warm { fill: var(--warm) } .drtl .accent { fill: var(--accent) } .drtl .on { fill: var(--on) }
.drtl .node { fill: var(--accent); stroke: var(--panel); stroke-width: 2 }
.drtl .node.left-out { fill: var(--panel); stroke: var(--accent) } .drtl .left-out { opacity: .55 }
.drtl .leader { stroke: var(--soft); stroke-width: .8; opacity: .7 }
.drtl .target { fill: var(--ink) } .drtl .in-target { fill: var(--paper); font-weight: 650 }
.drtl .track { fill: var(--line); opacity: .55 } .drtl .whisker { stroke: var(--ink); stroke-width: 1.4 }
""".strip()


@dataclass(frozen=True)
class Ranked:
    """An auxiliary distortion as it is drawn: `angle` in radians, clockwise from the top by rank.

    `selected` ones are learnt from. `gain_db` is what that promises, None where it was not assessed, and `share` its
    part in what is learnt.
    """

    id: str
    words: str
    gamma: float
    spread: float
    angle: float
    psnr_db: float
    selected: bool
    gain_db: float | None
    share: float

    def place(self, rings: "Rings") -> tuple[float, float]:
        return around(self.angle, rings.at(self.gamma))


@dataclass(frozen=True)
class Rings:
    """Distance from the centre at γ = 1 and at γ ≤ 0."""

    near: float
    far: float

    def at(self, gamma: float) -> float:
        return self.far - (self.far - self.near) * min(1.0, max(0.0, gamma))


def draw(graph: Mapping[str, Any], title: str) -> bytes:
    """The drawing as an SVG document, for a graph as the job has it; it follows the viewer's colour scheme."""
    facts = graph["graph"]
    nodes = ranked(graph)
    cosines = {frozenset((link["source"], link["target"])): float(link["cosine"]) for link in graph["links"]}
    names = [facts["target"], *(node.id for node in nodes)]
    promising = sorted((node for node in nodes if node.gain_db is not None), key=lambda node: -(node.gain_db or 0.0))
    bars_height, gains_height = 58 + BAR_ROW * len(nodes), 58 + BAR_ROW * len(promising)
    cell = min(34.0, 290 / len(names))
    height = int(max(780, HEADER + bars_height + 140 + cell * len(names) + 60))
    if promising:
        height = int(max(height, GRAPH_BOTTOM + MARGIN + gains_height))

    svg = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", role="img")
    svg.set("class", "drtl")
    svg.set("width", str(WIDTH))
    svg.set("height", str(height))
    add(svg, "title", f"Relation graph of {title}")
    add(svg, "desc", facts["sentence"])
    add(svg, "style", STYLE)
    add(svg, "rect", cls="paper", width="100%", height="100%")
    _header(svg, title, facts)
    graph_bottom = GRAPH_BOTTOM if promising else height - MARGIN / 2
    _panel(svg, MARGIN / 2, HEADER, GRAPH_WIDTH - MARGIN, graph_bottom - HEADER)
    _graph(svg, facts["target"], nodes, cosines, graph_bottom)
    if promising:
        top = graph_bottom + MARGIN / 2
        _panel(svg, MARGIN / 2, top, GRAPH_WIDTH - MARGIN, height - top - MARGIN / 2)
        _gains(svg, promising, top)
    right = GRAPH_WIDTH
    _panel(svg, right, HEADER, WIDTH - right - MARGIN / 2, bars_height)
    _bars(svg, nodes)
    below = HEADER + bars_height + MARGIN / 2
    _panel(svg, right, below, WIDTH - right - MARGIN / 2, height - below - MARGIN / 2)
    _heat_map(svg, names, cosines, below, cell)
    document: bytes = ET.tostring(svg, encoding="utf-8", xml_declaration=True)
    return document


def ranked(graph: Mapping[str, Any]) -> list[Ranked]:
    """The auxiliary nodes by falling γ. A job that learns from none of them draws all alike: its sentence says so."""
    auxiliary = {node["id"]: node for node in graph["nodes"] if node["kind"] == "auxiliary"}
    learns = any(node.get("selected") for node in auxiliary.values())
    ranking = [auxiliary[name] for name in graph["graph"]["ranking"]]
    return [
        Ranked(
            node["id"],
            str(node.get("words", node["id"])),
            float(node["gamma"]),
            float(node["gamma_std"]),
            2 * math.pi * place / len(ranking),
            float(node["psnr_db"]),
            not learns or bool(node.get("selected")),
            None if node.get("gain_db") is None else float(node["gain_db"]),
            float(node.get("weight", 0.0)),
        )
        for place, node in enumerate(ranking)
    ]


def around(angle: float, radius: float) -> tuple[float, float]:
    return CENTRE_X + radius * math.sin(angle), CENTRE_Y - radius * math.cos(angle)


def add(parent: ET.Element, tag: str, text: str | None = None, *, cls: str = "", **attributes: object) -> ET.Element:
    """Append an element; numbers are rounded, underscores in attribute names become hyphens."""
    child = ET.SubElement(parent, tag)
    if cls:
        child.set("class", cls)
    for name, value in attributes.items():
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        child.set(name.replace("_", "-"), shown)
    child.text = text
    return child


def number(value: float) -> str:
    """Two decimals, with the typographic minus; no negative zero."""
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _panel(svg: ET.Element, x: float, y: float, width: float, height: float) -> None:
    add(svg, "rect", cls="panel", x=x, y=y, width=width, height=height, rx=12)


def _header(svg: ET.Element, title: str, facts: Mapping[str, Any]) -> None:
    add(svg, "text", f"Relation graph · {title}", cls="name", x=MARGIN, y=46)
    related = facts["verdict"] == "related"
    badge_width = 74 if related else 88
    badge_x = WIDTH - MARGIN / 2 - badge_width
    add(svg, "rect", cls="accent" if related else "warm", x=badge_x, y=26, width=badge_width, height=26, rx=13)
    add(svg, "text", facts["verdict"], cls="on strong", x=badge_x + badge_width / 2, y=44, text_anchor="middle")
    for line, text in enumerate(textwrap.wrap(str(facts["sentence"]), 132)[:3]):
        add(svg, "text", text, cls="sentence", x=MARGIN, y=76 + 21 * line)


def _graph(
    svg: ET.Element, target: str, nodes: Sequence[Ranked], cosines: Mapping[frozenset[str], float], bottom: float
) -> None:
    add(svg, "text", "Which known distortions it resembles", cls="head", x=MARGIN, y=HEADER + 30)
    crowded = len(nodes) > MOST_LABELS_WITHIN
    rings = Rings(CROWDED_NEAR, CROWDED_FAR) if crowded else Rings(NEAR, FAR)
    between = -math.pi / max(1, len(nodes))  # Half-way between the last and the first node, where no edge runs.
    for gamma in RINGS:
        add(svg, "circle", cls="ring", cx=CENTRE_X, cy=CENTRE_Y, r=rings.at(gamma), stroke_dasharray="2 4")
    for place, node in enumerate(nodes):
        for other in nodes[place + 1 :]:
            cosine = cosines.get(frozenset((node.id, other.id)), 0.0)
            if cosine > LIKE:
                (x1, y1), (x2, y2) = node.place(rings), other.place(rings)
                strength = 0.15 + 0.5 * (cosine - LIKE) / (1 - LIKE)
                line = add(svg, "line", cls="kin", x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=1.2, opacity=strength)
                add(line, "title", f"{node.id} – {other.id}: cosine {number(cosine)}")
    for node in nodes:
        x, y = node.place(rings)
        strength = min(1.0, max(0.0, node.gamma))
        cls = "edge" if node.selected else "edge left-out"
        add(
            svg, "line", cls=cls, x1=CENTRE_X, y1=CENTRE_Y, x2=x, y2=y, stroke_width=1 + 6 * strength,
            opacity=0.25 + 0.65 * strength,
        )  # fmt: skip
    for gamma in RINGS:
        x, y = around(between, rings.at(gamma))
        label = "γ = 1" if gamma == 1 and not crowded else f"{gamma:g}"  # Nodes leave no room for more.
        add(svg, "rect", cls="panel", x=x - 3.3 * len(label) - 2, y=y - 8, width=6.6 * len(label) + 4, height=14)
        add(svg, "text", label, cls="soft small", x=x, y=y + 3, text_anchor="middle")
    for node in nodes:
        _node(svg, node, rings)
        if not crowded:
            _label_beside(svg, node, rings)
    if crowded:
        _labels_around(svg, nodes, rings)
    add(svg, "circle", cls="target", cx=CENTRE_X, cy=CENTRE_Y, r=TARGET_RADIUS)
    add(svg, "text", target, cls="in-target", x=CENTRE_X, y=CENTRE_Y + 4.5, text_anchor="middle")
    captions = (
        "The nearer to the centre, the more alike (γ, the cosine of the two embeddings).",
        f"Thin lines join distortions that are alike among themselves (cosine above {LIKE:g}).",
        "" if all(node.selected for node in nodes) else "Hollow ones are not learnt from.",
    )
    for place, caption in enumerate(filter(None, captions)):
        add(svg, "text", caption, cls="soft small", x=MARGIN, y=bottom - 50 + 16 * place)


def _node(svg: ET.Element, node: Ranked, rings: Rings) -> None:
    x, y = node.place(rings)
    group = add(svg, "g")
    add(group, "title", f"{node.words}: γ {number(node.gamma)} ± {number(node.spread)}, {node.psnr_db:.1f} dB")
    add(group, "circle", cls="node" if node.selected else "node left-out", cx=x, cy=y, r=7 + 6 * max(0.0, node.gamma))


def _label_beside(group: ET.Element, node: Ranked, rings: Rings) -> None:
    """Name and strength beside the node, γ on its edge."""
    x, y = node.place(rings)
    label_y = y - 32 if math.cos(node.angle) > 0 else y + 28  # Away from the centre, so off every edge.
    add(group, "text", node.id, cls="strong", x=x, y=label_y, text_anchor="middle")
    strength = f"{node.psnr_db:.1f} dB"
    add(group, "text", strength, cls="soft small number", x=x, y=label_y + 14, text_anchor="middle")
    middle = (TARGET_RADIUS + rings.at(node.gamma) - 12) / 2
    pill_x, pill_y = around(node.angle, middle)
    add(group, "rect", cls="pill", x=pill_x - 19, y=pill_y - 10, width=38, height=20, rx=10)
    add(group, "text", number(node.gamma), cls="number strong", x=pill_x, y=pill_y + 4.5, text_anchor="middle")


def _labels_around(svg: ET.Element, nodes: Sequence[Ranked], rings: Rings) -> None:
    """Names with γ and strength on a ring outside, each joined to its node by a thin line; none covers another."""
    for side in (1, -1):
        here = [node for node in nodes if (math.sin(node.angle) >= -1e-9) == (side > 0)]
        here.sort(key=lambda node: -math.cos(node.angle))
        lines = [wrapped(node.id) for node in here]
        heights = [LINE * (len(each) + 1) + 4 for each in lines]
        wanted = [around(node.angle, LABEL_RING)[1] for node in here]
        for node, names, height, middle in zip(here, lines, heights, spread_out(wanted, heights), strict=True):
            # As far out as the ring is at the height at which the label came to stand.
            reach = math.sqrt(max(0.0, LABEL_RING**2 - min(abs(middle - CENTRE_Y), LABEL_RING) ** 2))
            x = CENTRE_X + side * max(reach, 14.0)
            node_x, node_y = node.place(rings)
            add(svg, "line", cls="leader", x1=node_x, y1=node_y, x2=x - side * 2, y2=middle)
            anchor = "start" if side > 0 else "end"
            top = middle - height / 2 + LINE - 1
            for row, name in enumerate(names):
                add(svg, "text", name, cls="strong", x=x + side * 2, y=top + LINE * row, text_anchor=anchor)
            told = f"{number(node.gamma)} · {node.psnr_db:.1f} dB"
            below = top + LINE * len(names)
            add(svg, "text", told, cls="soft small number", x=x + side * 2, y=below, text_anchor=anchor)


def wrapped(name: str) -> list[str]:
    """A long name in two lines, cut behind an underscore."""
    head, mark, tail = name.partition("_")
    return [head + mark, tail] if mark and len(name) > 10 else [name]


def spread_out(middles: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Where ascending labels of these heights stand so that none covers another, none far from where it should be."""
    placed: list[float] = []
    for middle, height in zip(middles, heights, strict=True):
        least = placed[-1] + (heights[len(placed) - 1] + height) / 2 if placed else middle
        placed.append(max(middle, least))
    # Half of what they were pushed down is taken back by all, so that those above share the push.
    pushed = max((at - middle for at, middle in zip(placed, middles, strict=True)), default=0.0)
    return [at - pushed / 2 for at in placed]


def _bars(svg: ET.Element, nodes: Sequence[Ranked]) -> None:
    left = GRAPH_WIDTH + MARGIN / 2
    add(svg, "text", "γ, ranked", cls="head", x=left, y=HEADER + 30)
    add(svg, "text", "whiskers: ± one standard deviation over the pairs", cls="soft small", x=left + 84, y=HEADER + 30)
    length = BAR_RIGHT - BAR_LEFT

    def at(gamma: float) -> float:
        return BAR_LEFT + length * min(1.0, max(0.0, gamma))

    for row, node in enumerate(nodes):
        y = HEADER + 58 + BAR_ROW * row
        _bar(svg, node, (BAR_LEFT, BAR_RIGHT), y, node.gamma, "accent" if node.selected else "accent left-out")
        low, high = at(node.gamma - node.spread), at(node.gamma + node.spread)
        add(svg, "line", cls="whisker", x1=low, y1=y, x2=high, y2=y)
        for end in (low, high):
            add(svg, "line", cls="whisker", x1=end, y1=y - 4, x2=end, y2=y + 4)
        add(svg, "text", number(node.gamma), cls="number strong", x=BAR_RIGHT + 12, y=y + 4.5)
        add(svg, "text", f"± {number(node.spread)}", cls="number soft small", x=BAR_RIGHT + 56, y=y + 4.5)


def _bar(svg: ET.Element, node: Ranked, ends: tuple[float, float], y: float, share: float, cls: str) -> None:
    """A named bar, filled by a share of its length between 0 and 1."""
    left, length = ends[0], ends[1] - ends[0]
    size = "small" if len(node.id) > LONG_NAME else ""
    add(svg, "text", node.id, cls=size, x=left - 12, y=y + 4.5, text_anchor="end")
    add(svg, "rect", cls="track", x=left, y=y - 6, width=length, height=12, rx=3)
    add(svg, "rect", cls=cls, x=left, y=y - 6, width=length * min(1.0, max(0.0, share)), height=12, rx=3)


def _gains(svg: ET.Element, promising: Sequence[Ranked], top: float) -> None:
    """What learning each distortion promises, best first; one that would do harm has no bar."""
    add(svg, "text", "What learning it promises", cls="head", x=MARGIN, y=top + 30)
    told = "gain at a first look, and its share in what is learnt"
    add(svg, "text", told, cls="soft small", x=MARGIN + 220, y=top + 30)
    most = max(0.1, *(node.gain_db or 0.0 for node in promising))
    for row, node in enumerate(promising):
        y, gain = top + 58 + BAR_ROW * row, node.gain_db or 0.0
        _bar(svg, node, (GAIN_LEFT, GAIN_RIGHT), y, gain / most, "accent")
        add(svg, "text", f"{'+' * (gain > -0.005)}{number(gain)} dB", cls="number strong", x=GAIN_RIGHT + 12, y=y + 4.5)
        add(svg, "text", f"{node.share:.0%}", cls="number soft small", x=GAIN_RIGHT + 86, y=y + 4.5)


def _heat_map(
    svg: ET.Element, names: Sequence[str], cosines: Mapping[frozenset[str], float], top: float, cell: float
) -> None:
    add(svg, "text", "All cosines", cls="head", x=GRAPH_WIDTH + MARGIN / 2, y=top + 30)
    left, first = BAR_LEFT - 20, top + (100 if cell >= SMALLEST_ROW else 124)
    for row, name in enumerate(names):
        y = first + cell * row
        cls = ("small " * (cell < SMALLEST_ROW) + "strong" * (row == 0)).strip()
        add(svg, "text", name, cls=cls, x=left - 8, y=y + cell / 2 + 4.5, text_anchor="end")
        x = left + cell * (row + 0.5)
        turned = f"rotate({-45 if cell >= SMALLEST_ROW else -60} {x:.1f} {first - 8:.1f})"
        add(svg, "text", name, cls=cls, x=x, y=first - 8, transform=turned)
        for column, other in enumerate(names):
            cosine = 1.0 if row == column else cosines.get(frozenset((name, other)), 0.0)
            _cell(svg, f"{name} – {other}", cosine, left + cell * column, y, cell)


def _cell(svg: ET.Element, whose: str, cosine: float, x: float, y: float, size: float) -> None:
    """A square whose strength is the cosine; negative ones are warm."""
    strength = min(1.0, abs(cosine))
    square = add(
        svg, "rect", cls="warm" if cosine < 0 else "accent", x=x + 1, y=y + 1, width=size - 2, height=size - 2, rx=4,
        fill_opacity=0.06 + 0.94 * strength,
    )  # fmt: skip
    add(square, "title", f"{whose}: cosine {number(cosine)}")
    if size >= 30:
        readable = "on" if strength > 0.55 else ""
        text = number(cosine).replace("0.", ".", 1) if abs(cosine) < 0.995 else "1"
        cls = f"small number {readable}".strip()
        add(svg, "text", text, cls=cls, x=x + size / 2, y=y + size / 2 + 4, text_anchor="middle")
