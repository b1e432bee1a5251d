"""Reports about the relation as the tables of docs/results.md."""

from typing import Any


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


def leave_one_out_table(report: dict[str, Any]) -> str:
    """The one left out in its own network, beside the same distortion in a network of all."""
    lines = [
        "| left out | silhouette | of a network of all | own neighbours | of a network of all | strangers |",
        "|---|---|---|---|---|---|",
    ]
    everybody = report["networks"].get("none", {})
    for name, near in report["networks"].items():
        if name == "none":
            continue
        own, known = near[name], everybody.get(name)
        strangers = ", ".join(f"{other} {share:.0%}" for other, share in own["strangers"].items()) or "–"
        cells = [f"{own['silhouette']:.2f}", f"{known['silhouette']:.2f}" if known else "–"]
        cells += [f"{own['own_neighbours']:.0%}", f"{known['own_neighbours']:.0%}" if known else "–"]
        lines.append(f"| {' | '.join([name, *cells, strangers])} |")
    asked = report["asked"]
    chosen = f"seed {asked['seed']}, {asked['steps']} steps a network, {asked['samples']} samples a distortion"
    return "\n".join([*lines, "", f"{_recorded(report)}, {chosen}."])


def _recorded(report: dict[str, Any]) -> str:
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    return f"Recorded on {report['date'][:10]} at commit `{report['commit']}`: {machine}"
