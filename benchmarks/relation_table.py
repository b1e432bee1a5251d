"""Reports about the relation as the tables of docs/results.md."""

import statistics
from typing import Any, Final

from scipy.stats import spearmanr

USUAL: Final = 6  # Crops of a pair.


def unrelated_table(report: dict[str, Any]) -> str:
    """Verdicts counted, then every case on the wrong side."""
    words = {
        "known": "known distortions, at three strengths",
        "real": "real targets",
        "foreign": "foreign: areas changed, content displaced",
        "not made for": "foreign: of other kinds",
    }
    lines = ["| targets | called unrelated | by γ alone |", "|---|---|---|"]
    for kind, count in report["called_unrelated"].items():
        lines.append(f"| {words[kind]} | {count['by_rule']} of {count['cases']} | {count['by_gamma_alone']} |")
    lines += ["", "| on the wrong side | strength | in areas | displaced | best γ |", "|---|---|---|---|---|"]
    for case in report["cases"]:
        should_be = "related" if case["kind"] in {"known", "real"} else "unrelated"
        if case["verdict"] != should_be:
            shares = f"{case['in_areas']:.2f} | {case['displaced']:.2f}"
            lines.append(
                f"| {case['name']} | {case['strength']:g} | {shares} | {case['gamma']:.2f} ({case['nearest']}) |"
            )
    chosen = f"seed {report['seed']}, {report['shots']} pairs a target, prior `{report['prior']}`"
    return "\n".join([*lines, "", f"{_recorded(report)}, {chosen}."])


def read_outs_table(report: dict[str, Any]) -> str:
    """Spearman's ρ between promise and transfer for each ridge and target, then the mean of real targets by crops."""
    real = [target for target in report["transferred"] if target not in report["simulated"]]
    ways = [*report["read_outs"][0]["gain_db"], "chosen"]
    words = {"own": "none: as the expert is", "chosen": "for each expert the best on the pairs left out"}
    lines = [f"| ridge | {' | '.join([*real, 'mean of these', *report['simulated']])} |"]
    lines.append("|---" * (len(report["transferred"]) + 2) + "|")
    for way in ways:
        by_target = {target: _rhos(report, target, way, USUAL) for target in report["transferred"]}
        means = [statistics.fmean(drawn) for drawn in zip(*(by_target[target] for target in real), strict=True)]
        cells = [f"{statistics.fmean(by_target[target]):.2f}" for target in [*real, *report["simulated"]]]
        cells.insert(len(real), f"{statistics.fmean(means):.2f} ({min(means):.2f} to {max(means):.2f})")
        lines.append(f"| {' | '.join([words.get(way, way), *cells])} |")
    crops = sorted({each["crops"] for each in report["read_outs"]})
    lines += ["", f"| ridge | {' | '.join(f'{count} crops of a pair' for count in crops)} |"]
    lines.append("|---" * (len(crops) + 1) + "|")
    for way in ways:
        cells = []
        for count in crops:
            drawn = zip(*(_rhos(report, target, way, count) for target in real), strict=True)
            means = [statistics.fmean(rhos) for rhos in drawn]
            cells.append(f"{statistics.fmean(means):.2f} ({min(means):.2f} to {max(means):.2f})")
        lines.append(f"| {' | '.join([words.get(way, way), *cells])} |")
    drawings = len({each["drawing"] for each in report["read_outs"]})
    chosen = f"{report['shots']} pairs a target, {drawings} drawings of crops, prior `{report['prior']}`"
    return "\n".join([*lines, "", f"{_recorded(report)}, {chosen}; {USUAL} crops of a pair in the first table."])


def _rhos(report: dict[str, Any], target: str, way: str, crops: int) -> list[float]:
    """Spearman's ρ for each drawing."""
    transferred, found = report["transferred"][target], []
    for each in report["read_outs"]:
        if (each["target"], each["crops"]) == (target, crops):
            by_way = each["gain_db"]
            promised = (
                {task: max(gains[task] for gains in by_way.values()) for task in transferred}
                if way == "chosen"
                else by_way[way]
            )
            pairs = [(promised[task], psnr) for task, psnr in transferred.items()]
            found.append(float(spearmanr(*zip(*pairs, strict=True)).statistic))
    return found


def leave_one_out_table(report: dict[str, Any]) -> str:
    """The one left out in its own network, in brackets the same distortion in a network of all."""
    networks = report["networks"]
    ways = list(next(iter(networks.values())))
    everybody = networks.get("none")
    heads = [f"{what} of {way}" for what in ("silhouette", "own neighbours") for way in ways]
    lines = [f"| left out | {' | '.join(heads)} | strangers of pairs |", "|---" * (len(heads) + 2) + "|"]
    left_out = [name for name in networks if name != "none"]
    for name in left_out:
        cells = []
        for fact, form in (("silhouette", ".2f"), ("own_neighbours", ".0%")):
            for way in ways:
                known = f" ({everybody[way][name][fact]:{form}})" if everybody else ""
                cells.append(f"{networks[name][way][name][fact]:{form}}{known}")
        near = networks[name]["pairs"][name]["strangers"]
        strangers = ", ".join(f"{other} {share:.0%}" for other, share in near.items()) or "–"
        lines.append(f"| {' | '.join([name, *cells, strangers])} |")
    asked = report["asked"]
    learnt = {"paper": "the paper's seven", "all": "all seventeen"}[asked["learn"]]
    chosen = f"{learnt} but for the one, {asked['steps']} steps a network, {asked['samples']} samples a distortion"
    return "\n".join([*lines, "", f"{_recorded(report)}, seed {asked['seed']}, {chosen}."])


def _recorded(report: dict[str, Any]) -> str:
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    return f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {machine}"
