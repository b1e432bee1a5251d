"""The tables of `drtl bench paper` against means and ranks computed another way."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import trials as bench_trials
from benchmarks.paper import fig6, fig7, table1, table2, table3
from benchmarks.paper.planning import Estimate, Planned, in_words, stages
from benchmarks.paper.records import trained_in

TARGETS = ("scanner", "zoom")
SCHEMES = ("baseline", "pretrain", "maml", "drtl-pretrain", "drtl-maml")
IMAGES = ("a", "b", "c")


def quality(rng: np.random.Generator) -> dict[str, Any]:
    images = {name: {"psnr": float(rng.uniform(20, 40)), "ssim": float(rng.uniform(0.5, 1))} for name in IMAGES}
    means = {metric: float(np.mean([each[metric] for each in images.values()])) for metric in ("psnr", "ssim")}
    return means | {"images": images}


@pytest.fixture
def report() -> dict[str, Any]:
    """Records of three seeds, but for one scheme that lacks the last."""
    rng = np.random.default_rng(7)
    trials: list[dict[str, Any]] = []
    for target in TARGETS:
        trials.append({"kind": "input", "target": target, "train_pairs": 10} | quality(rng))
        trials.append({"kind": "dip", "target": target, "seed": 0} | {**quality(rng)})
        trials[-1]["images"].pop("c")  # DIP is slow, so it restores fewer images.
        for seed in range(3):
            for backbone in ("vdsr", "rdn"):
                for shots in (5, 10):
                    for scheme in SCHEMES:
                        if (backbone, scheme, seed) != ("rdn", "maml", 2):
                            about = {"backbone": backbone, "scheme": scheme, "shots": shots}
                            trials.append({"kind": "training", **about, "target": target, "seed": seed} | quality(rng))
            for nodes in (0, 32):
                about = {"backbone": "vdsr", "memory_nodes": nodes, "shots": 10}
                trials.append({"kind": "memory", **about, "target": target, "seed": seed} | quality(rng))
    return {"trials": trials, "shots": 10, "backbone": "vdsr", "cut_down": False}


def rows(markdown: str, first: str) -> list[list[str]]:
    """The cells of all rows that begin so."""
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in markdown.splitlines() if line.startswith("|")]
    return [cells[1:] for cells in lines if cells[0] == first]


def psnr(report: dict[str, Any], seeds: tuple[int, ...], **about: Any) -> float:
    found = [t for t in report["trials"] if all(t.get(k) == v for k, v in about.items()) and t["seed"] in seeds]
    assert len(found) == len(seeds)
    return float(np.mean([trial["psnr"] for trial in found]))


@pytest.mark.parametrize(("backbone", "name", "meta_seeds"), [("vdsr", "VDSR", (0, 1, 2)), ("rdn", "RDN", (0, 1))])
def test_table_1_has_means_over_the_seeds_that_compared_schemes_share(
    report: dict[str, Any], backbone: str, name: str, meta_seeds: tuple[int, ...]
) -> None:
    seeds = {scheme: meta_seeds if "maml" in scheme else (0, 1, 2) for scheme in SCHEMES}
    means = np.array(
        [
            [
                psnr(report, seeds[scheme], backbone=backbone, scheme=scheme, target=target, shots=10)
                for scheme in SCHEMES
            ]
            for target in TARGETS
        ]
    )
    shown = rows(table1.table(report), name)
    for cells, expected in zip(shown, [*means, means.mean(axis=0)], strict=True):
        assert [cell.split(" / ")[0] for cell in cells[:5]] == [f"{value:.2f}" for value in expected]
        base, pretrain, maml, drtl, drtl_maml = expected
        assert cells[5:8] == [f"{drtl - base:+.2f}", f"{drtl - pretrain:+.2f}", f"{drtl_maml - maml:+.2f}"]
        assert cells[8:] == ["3" if len(meta_seeds) == 3 else "3, MAML 2"]


def test_table_1_counts_the_seeds_of_meta_learning_alone(report: dict[str, Any]) -> None:
    alone = report | {"trials": [t for t in report["trials"] if t.get("scheme") in (None, "maml", "drtl-maml")]}
    assert [cells[8] for cells in rows(table1.table(alone), "RDN")] == ["2"] * (len(TARGETS) + 1)


def test_table_2_compares_on_the_images_that_all_methods_have(report: dict[str, Any]) -> None:
    for target in TARGETS:

        def mean(target: str = target, **about: Any) -> str:
            found = [t for t in report["trials"] if (about | {"target": target}).items() <= t.items()]
            return f"{np.mean([[t['images'][name]['psnr'] for name in 'ab'] for t in found]):.2f}"

        training: dict[str, Any] = {"kind": "training", "backbone": "vdsr", "shots": 10}
        expected = [
            mean(kind="input"),
            mean(scheme="baseline", **training),
            mean(kind="dip"),
            mean(scheme="drtl-pretrain", **training),
        ]
        assert rows(table2.table(report), target)[0] == expected


def test_table_2_compares_over_the_seeds_that_both_schemes_have(report: dict[str, Any]) -> None:
    of_last = {"kind": "training", "scheme": "drtl-pretrain", "seed": 2}  # Not made yet, or the study was interrupted.
    report["trials"] = [trial for trial in report["trials"] if not of_last.items() <= trial.items()]
    for target in TARGETS:
        compared = [trial for trial in report["trials"] if trial.get("scheme") == "baseline" and trial["seed"] < 2]
        found = [t["images"] for t in compared if (t["target"], t["backbone"], t["shots"]) == (target, "vdsr", 10)]
        expected = np.mean([images[name]["psnr"] for images in found for name in ("a", "b")])
        assert rows(table2.table(report), target)[0][1] == f"{expected:.2f}"


def test_real_esrgan_has_a_column_where_it_was_measured(report: dict[str, Any]) -> None:
    assert "| Real-ESRGAN |" not in table2.table(report)
    for target in TARGETS:
        measured = quality(np.random.default_rng(1))
        report["trials"].append({"kind": "real-esrgan", "target": target, "enlarges": 4} | measured)
    shown = table2.table(report)
    assert rows(shown, "PSNR (dB)")[0] == ["Input", "Baseline", "DIP", "Real-ESRGAN", "DRTL (PT)"]
    assert "4 times as large" in shown


def test_table_3_shows_what_the_memory_bank_changes(report: dict[str, Any]) -> None:
    both = np.array(
        [
            [psnr(report, (0, 1, 2), kind="memory", memory_nodes=nodes, target=target) for nodes in (32, 0)]
            for target in TARGETS
        ]
    )
    means = [*both, both.mean(axis=0)]
    for name, (with_bank, without) in zip([*TARGETS, "mean of targets"], means, strict=True):
        expected = [f"{with_bank:.2f}", f"{without:.2f}", f"{with_bank - without:+.2f}"]
        assert rows(table3.table(report), name)[0] == expected


def test_table_3_shows_eq_6_as_printed_where_that_was_measured(report: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    for trial in [each for each in report["trials"] if each["kind"] == "memory" and each["memory_nodes"] == 32]:
        report["trials"].append(trial | {"affinity": "literal"} | quality(rng))
        trial["affinity"] = "scaled"
    for target in TARGETS:
        scaled, literal = (
            psnr(report, (0, 1, 2), kind="memory", memory_nodes=32, affinity=affinity, target=target)
            for affinity in ("scaled", "literal")
        )
        shown = rows(table3.table(report), target)[0]
        assert (shown[0], shown[3:]) == (f"{scaled:.2f}", [f"{literal:.2f}", f"{scaled - literal:+.2f}"])


def test_fig_7_says_what_fewer_pairs_cost(report: dict[str, Any]) -> None:
    lost = [
        [
            psnr(report, (0, 1, 2), backbone="vdsr", scheme=scheme, target=target, shots=10)
            - psnr(report, (0, 1, 2), backbone="vdsr", scheme=scheme, target=target, shots=5)
            for scheme in ("baseline", "drtl-pretrain")
        ]
        for target in TARGETS
    ]
    shown = fig7.table(report)
    for target, losses in zip([*TARGETS, "mean of targets"], [*lost, np.mean(lost, axis=0)], strict=True):
        assert rows(shown, target)[-1] == [f"{value:+.2f}" for value in losses]


def test_a_point_of_fig_7_with_more_seeds_is_compared_over_those_that_all_have(report: dict[str, Any]) -> None:
    report["trials"] = [t for t in report["trials"] if (t.get("shots"), t.get("seed")) != (5, 2)]
    for target in TARGETS:
        expected = psnr(report, (0, 1), backbone="vdsr", scheme="baseline", target=target, shots=10)
        assert dict(fig7.curves(report, target)["baseline"])[10] == pytest.approx(expected)


def ranks(values: list[float]) -> np.ndarray:
    """1 for the least; equal ones share the mean of their places."""
    x = np.array(values)
    return np.array([(x < each).sum() + ((x == each).sum() + 1) / 2 for each in x])


tenths = st.integers(-10, 10).map(lambda value: value / 10)  # So that ties are frequent.


@given(st.lists(st.tuples(tenths, tenths), min_size=3, max_size=12))
def test_spearman_is_the_correlation_of_ranks(pairs: list[tuple[float, float]]) -> None:
    found = fig6.correlation([fig6.Point(str(i), gamma, gain) for i, (gamma, gain) in enumerate(pairs)])
    x, y = (ranks(list(values)) - (len(pairs) + 1) / 2 for values in zip(*pairs, strict=True))
    if not x.any() or not y.any():
        assert found is None
    else:
        assert found == pytest.approx(float(x @ y / np.sqrt((x @ x) * (y @ y))), abs=1e-9)


def planned(name: str, like: str, cost: float) -> Planned:
    return Planned({"kind": name}, like, cost, 1, dict)


def test_what_two_figures_share_is_planned_once_and_what_is_there_not_at_all() -> None:
    a, b, c = (planned(name, "x", 1) for name in "abc")
    found = stages({"one": [a, b], "two": [b, c, c]}, lambda about: about == {"kind": "a"})
    assert [(stage.name, [each.about["kind"] for each in stage.planned]) for stage in found] == [
        ("one", ["b"]),
        ("two", ["c"]),
    ]


def test_time_is_told_by_those_alike_and_else_by_all() -> None:
    estimate = Estimate()
    assert estimate.seconds([planned("a", "x", 1)]) is None
    estimate.learn(planned("a", "x", 10), 20)
    estimate.learn(planned("b", "y", 10), 100)
    assert estimate.seconds([planned("c", "x", 5)]) == pytest.approx(10)
    assert estimate.seconds([planned("c", "z", 5)]) == pytest.approx(30)  # 120 s for 20.
    assert [in_words(seconds) for seconds in (40, 720, 7_500)] == ["40 s", "12 min", "2 h 05 min"]


def test_fig_6_ranks_by_gamma_and_by_what_the_experts_gain() -> None:
    """On one target γ is the reverse of what transfers, and the read-out is in its order, but for one pair of seven."""
    tasks = [f"task {place}" for place in range(7)]
    seven = dict(zip(tasks, range(7), strict=True))
    read_out = seven | {tasks[2]: 3, tasks[3]: 2}
    about = {"target": "zoom", "shots": 10, "seed": 0}
    trials: list[dict[str, Any]] = [
        {"kind": "input", "target": "zoom", "train_pairs": 10, "psnr": 20.0, "ssim": 0.5},
        {"kind": "graph", "gamma": {edges: {t: 1 - seven[t] / 10 for t in tasks} for edges in fig6.EDGES}, **about},
        {"kind": "read-out", "gain_db": {task: float(gain) for task, gain in read_out.items()}, **about},
        *({"kind": "one task", "backbone": "vdsr", "task": t, "psnr": 21.0 + seven[t], **about} for t in tasks),
    ]
    report = {"trials": trials, "shots": 10, "backbone": "vdsr"}
    shown = fig6.table(report)
    assert rows(shown, "cosine, the shipped prior")[0][0] == "-1.00"
    assert rows(shown, "read-out, of the shipped experts")[0][0] == f"{1 - 6 * 2 / (7 * 48):.2f}"
    assert rows(shown, "task 2")[0] == ["0.800", "+3.00", "+3.00"]
    del trials[2]
    assert rows(fig6.table(report), "task 2")[0] == ["0.800", "–", "+3.00"]


def test_every_record_says_by_what_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arithmetic in ("fp32", "bf16"):
        monkeypatch.setattr(bench_trials, "trained_in", lambda on, said=arithmetic: said)
        study = bench_trials.Trials(tmp_path / "records.json", {"benchmark": "rates"}, say=lambda record: None)
        study.measure({"arm": arithmetic}, lambda: {"psnr": 30.0})
    kept = json.loads((tmp_path / "records.json").read_text())
    assert [trial["made"]["arithmetic"] for trial in kept["trials"]] == ["fp32", "bf16"]
    assert trained_in(kept) == ", trained in bf16 and fp32"
    assert trained_in({"trials": [{"psnr": 30.0}]}) == ""
