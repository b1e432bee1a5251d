"""A relation graph such as a real job makes, written by hand: seven distortions and a target most like mild ones."""

from itertools import combinations
from typing import Any

STRENGTH_DB = {
    "bicubic": 23.1, "aniso_bicubic": 24.8, "noise": 21.3, "blur": 25.9, "mild": 26.0, "moderate": 22.6, "severe": 20.4,
}  # fmt: skip
GAMMA = {
    "mild": 0.86, "moderate": 0.71, "blur": 0.64, "severe": 0.52, "aniso_bicubic": 0.33, "bicubic": 0.18,
    "noise": -0.07,
}  # fmt: skip
SPREAD = {
    "mild": 0.03, "moderate": 0.04, "blur": 0.08, "severe": 0.05, "aniso_bicubic": 0.09, "bicubic": 0.06, "noise": 0.04,
}  # fmt: skip
PLACE = {
    "bicubic": (-0.9, 0.5), "aniso_bicubic": (-0.4, 0.7), "noise": (0.9, -0.8), "blur": (-0.1, 0.6),
    "mild": (0.3, 0.1), "moderate": (0.4, -0.1), "severe": (0.5, -0.3), "target": (0.2, 0.2),
}  # fmt: skip
COSINE = {
    ("bicubic", "aniso_bicubic"): 0.62, ("bicubic", "noise"): -0.31, ("bicubic", "blur"): 0.41,
    ("bicubic", "mild"): 0.12, ("bicubic", "moderate"): 0.06, ("bicubic", "severe"): 0.02,
    ("aniso_bicubic", "noise"): -0.22, ("aniso_bicubic", "blur"): 0.68, ("aniso_bicubic", "mild"): 0.29,
    ("aniso_bicubic", "moderate"): 0.17, ("aniso_bicubic", "severe"): 0.09, ("noise", "blur"): -0.18,
    ("noise", "mild"): 0.14, ("noise", "moderate"): 0.24, ("noise", "severe"): 0.33, ("blur", "mild"): 0.55,
    ("blur", "moderate"): 0.42, ("blur", "severe"): 0.28, ("mild", "moderate"): 0.88, ("mild", "severe"): 0.74,
    ("moderate", "severe"): 0.91,
}  # fmt: skip


def sample_graph() -> dict[str, Any]:
    """The graph in the form in which a worker saves it."""
    ranking = sorted(GAMMA, key=lambda name: -GAMMA[name])
    positive = sum(max(0.0, gamma) for gamma in GAMMA.values())
    nodes: list[dict[str, Any]] = [
        {
            "id": name, "kind": "auxiliary", "x": PLACE[name][0], "y": PLACE[name][1], "gamma": GAMMA[name],
            "gamma_std": SPREAD[name], "gamma_min": GAMMA[name] - 0.1, "gamma_max": GAMMA[name] + 0.1,
            "rank": ranking.index(name) + 1, "weight": max(0.0, GAMMA[name]) / positive, "psnr_db": STRENGTH_DB[name],
            "samples": [[PLACE[name][0] + 0.05, PLACE[name][1] - 0.02]],
        }
        for name in STRENGTH_DB
    ]  # fmt: skip
    target = {
        "id": "target",
        "kind": "target",
        "x": 0.2,
        "y": 0.2,
        "psnr_db": 26.6,
        "samples": [[0.2, 0.1], [0.3, 0.2]],
    }
    cosines = {**COSINE, **{(name, "target"): GAMMA[name] for name in GAMMA}}
    links = [
        {"source": one, "target": other, "cosine": cosines[one, other]}
        for one, other in combinations([*STRENGTH_DB, "target"], 2)
    ]
    facts = {
        "target": "target",
        "metric": "cosine",
        "verdict": "related",
        "sentence": "Mostly like mild mixed damage (γ 0.86) and moderate mixed damage (γ 0.71); least like noise.",
        "prior": "2026.1",
        "ranking": ranking,
        "projection": "pca",
    }
    return {"directed": False, "multigraph": False, "graph": facts, "nodes": [*nodes, target], "links": links}
