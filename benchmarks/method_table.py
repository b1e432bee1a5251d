"""The recorded comparisons of ways to transfer as the tables of docs/results.md."""

import statistics
from typing import Any

from benchmarks.paper.records import trained_in

Trial = dict[str, Any]


def guidance_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images: an arm in each row, a target in each column; then how arms compare with γ ≡ 1."""
    trials, targets = report["trials"], list(report["inputs"])
    arms = list(dict.fromkeys(trial["arm"] for trial in trials))
    lines = [f"| how γ acts | {' | '.join(targets)} | mean over uniform | worst over uniform |"]
    lines += ["|---" * (len(targets) + 3) + "|"]
    inputs = [f"{report['inputs'][target]:.2f} dB" for target in targets]
    lines.append(f"| input | {' | '.join(inputs)} | – | – |")
    for arm in arms:
        measured = [_mean(trials, target, arm) for target in targets]
        cells = ["–" if value is None else f"{value:.2f} dB" for value in measured]
        over = [
            value - uniform
            for value, uniform in zip(measured, (_mean(trials, target, "uniform") for target in targets), strict=True)
            if value is not None and uniform is not None
        ]
        compared = [f"{statistics.fmean(over):+.2f} dB", f"{min(over):+.2f} dB"] if over else ["–", "–"]
        lines.append(f"| {' | '.join([arm, *cells, *compared])} |")
    start = {"scratch": "transfer from nothing", "prior": "transfer from the shipped prior"}[report["init"]]
    return "\n".join([*lines, "", f"{_recorded(report)}, {start}."])


def small_network_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images: a network in each row, a device in each column, all trained for equal processor time."""
    trials, targets, step_s = report["trials"], list(report["inputs"]), report["step_s"]
    head = ["network", "parameters", "time of a step", "steps", *targets, "mean"]
    inputs = [report["inputs"][target] for target in targets]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines.append(f"| input | – | – | – | {_with_mean(inputs)} |")
    slowest = max(step_s.values())
    for name, seconds in step_s.items():
        own = {trial["target"]: trial for trial in trials if trial["network"] == name}
        psnr = [own[target]["psnr"] for target in targets]
        first = own[targets[0]]
        about = [name, f"{first['parameters']:,}", f"{seconds / slowest:.2f}", f"{first['steps']} + {first['steps']}"]
        lines.append(f"| {' | '.join(about)} | {_with_mean(psnr)} |")
    unseen = f"up to {report['images']} unseen images, the middle {report['side']}×{report['side']}"
    budget = f"in {report['share']:g} of the time that the first takes for the steps of `quick`"
    learnt = f"{report['shots']} pairs, {report['batch']} crops a step, {budget}{trained_in(report)}, 1 seed"
    return "\n".join([*lines, "", f"{_dated(report)}, {learnt}, {unseen}."])


def _with_mean(values: list[float]) -> str:
    return " | ".join(f"{value:.2f}" for value in [*values, statistics.fmean(values)])


def auto_race_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images: a scheme in each row, a target in each column; then what `auto` lost and computed."""
    trials, targets = report["trials"], list(report["inputs"])
    schemes = list(dict.fromkeys(trial["scheme"] for trial in trials))

    def mean_of(what: str, target: str, scheme: str) -> float:
        own = [trial[what] for trial in trials if (trial["target"], trial["scheme"]) == (target, scheme)]
        return statistics.fmean(own)

    lines = [f"| scheme of the job | {' | '.join(targets)} | training steps |", "|---" * (len(targets) + 2) + "|"]
    inputs = [f"{report['inputs'][target]:.2f}" for target in targets]
    lines.append(f"| input | {' | '.join(inputs)} | – |")
    for scheme in schemes:
        cells = [f"{mean_of('psnr', target, scheme):.2f}" for target in targets]
        steps = statistics.fmean(mean_of("steps", target, scheme) for target in targets)
        lines.append(f"| {' | '.join([scheme, *cells])} | {steps:.0f} |")
    others = [scheme for scheme in schemes if scheme != "auto"]
    best = [max(mean_of("psnr", target, scheme) for scheme in others) for target in targets]
    lost = [f"{mean_of('psnr', target, 'auto') - most:+.2f}" for target, most in zip(targets, best, strict=True)]
    lines.append(f"| auto − the best of the others | {' | '.join(lost)} | |")
    chosen = [
        "; ".join(t["chosen"] for t in trials if (t["target"], t["scheme"]) == (target, "auto")) for target in targets
    ]
    lines.append(f"| what auto chose | {' | '.join(chosen)} | |")
    start = {"scratch": "transfer from nothing", "prior": "transfer from the shipped prior"}[report["init"]]
    return "\n".join([*lines, "", f"{_recorded(report)}, {start}, unshuffle {report['unshuffle']}."])


def far_target_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images after shares of the fine-tuning."""
    trials = report["trials"]
    arms = list(dict.fromkeys(trial["arm"] for trial in trials))
    steps = list(trials[0]["curve"])
    lines = [f"| start, learning rate | {' | '.join(f'{step} steps' for step in steps)} |"]
    lines += ["|---" * (len(steps) + 1) + "|"]
    for arm in arms:
        curves = [trial["curve"] for trial in trials if trial["arm"] == arm]
        cells = [f"{statistics.fmean(curve[step] for curve in curves):.2f} dB" for step in steps]
        lines.append(f"| {' | '.join([arm, *cells])} |")
    ((target, given),) = report["inputs"].items()
    return "\n".join([*lines, "", f"{_recorded(report)}; the input of `{target}` has {given:.2f} dB."])


def gradient_limit_table(report: dict[str, Any]) -> str:
    """PSNR after a transfer and after fine-tuning: a rate and a limit in each row, every seed in its cells."""
    trials = report["trials"]
    lines = [
        "| learning rate | limit | gradients beyond it | the largest | transferred | fine-tuned |",
        "|---" * 6 + "|",
    ]
    for rate, limit in dict.fromkeys((trial["rate"], trial["limit"]) for trial in trials):
        own = [trial for trial in trials if (trial["rate"], trial["limit"]) == (rate, limit)]
        beyond = "–" if limit == "inf" else ", ".join(str(trial["beyond"]) for trial in own)
        largest = ", ".join(f"{trial['largest']:.1f}" for trial in own)
        cells = [rate, "none" if limit == "inf" else limit, beyond, largest]
        cells += [", ".join(f"{trial[what]:.2f}" for trial in own) + " dB" for what in ("transferred_psnr", "psnr")]
        lines.append(f"| {' | '.join(cells)} |")
    ((target, given),) = report["inputs"].items()
    about = f"{report['backbone'].upper()}; the input of `{target}` has {given:.2f} dB; seeds between commas"
    return "\n".join([*lines, "", f"{_recorded(report)}; {about}."])


def clean_sources_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images: a source of clean images in each row, a target in each column; then means."""
    trials, targets, counts = report["trials"], list(report["inputs"]), report["sources"]
    sources = list(dict.fromkeys(trial["source"] for trial in trials))
    lines = [f"| learnt from | images | {' | '.join(targets)} | mean | before fine-tuning |"]
    lines += ["|---" * (len(targets) + 4) + "|"]
    inputs = [report["inputs"][target] for target in targets]
    lines.append(f"| input | – | {' | '.join(f'{psnr:.2f}' for psnr in inputs)} | {statistics.fmean(inputs):.2f} | – |")
    for source in sources:
        own = [trial for trial in trials if trial["source"] == source]
        means = [statistics.fmean(trial["psnr"] for trial in own if trial["target"] == target) for target in targets]
        before = [trial["transferred_psnr"] for trial in own if "transferred_psnr" in trial]
        images = sum(counts.get(name, 0) for name in source.split(" + "))
        cells = [source, str(images or "–"), *(f"{mean:.2f}" for mean in means), f"{statistics.fmean(means):.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{statistics.fmean(before):.2f}' if before else '–'])} |")
    return "\n".join([*lines, "", f"{_recorded(report)}."])


def prior_start_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images after shares of the fine-tuning, a start on a target in each row; then means of targets."""
    trials = report["trials"]
    steps = sorted({step for trial in trials for step in trial["curve"]}, key=int)
    lines = [f"| target | start, learning rate | {' | '.join(f'{step} steps' for step in steps)} |"]
    lines += ["|---" * (len(steps) + 2) + "|"]
    for target, start, rate in dict.fromkeys((trial["target"], trial["start"], trial["rate"]) for trial in trials):
        of_row = [
            trial for trial in trials if (trial["target"], trial["start"], trial["rate"]) == (target, start, rate)
        ]
        means = [[trial["curve"][step] for trial in of_row if step in trial["curve"]] for step in steps]
        cells = [f"{statistics.fmean(values):.2f}" if values else "" for values in means]
        lines.append(f"| {' | '.join([target, f'{start}, {rate:g}', *cells])} |")
    lines += ["", "| start, learning rate | at the end, mean of targets |", "|---|---|"]
    for start, rate in dict.fromkeys((trial["start"], trial["rate"]) for trial in trials):
        ends = [trial["psnr"] for trial in trials if (trial["start"], trial["rate"]) == (start, rate)]
        lines.append(f"| {start}, {rate:g} | {statistics.fmean(ends):.3f} |")
    inputs = ", ".join(f"{target} {psnr:.2f}" for target, psnr in report["inputs"].items())
    return "\n".join([*lines, "", f"{_recorded(report)}; inputs in dB: {inputs}."])


def rates_table(report: dict[str, Any]) -> str:
    """PSNR on unseen images: a backbone, a scheme and a device in each row, a fraction of the rates in each column."""
    trials = report["trials"]
    fractions = sorted({trial["fraction"] for trial in trials}, reverse=True)
    lines = [f"| backbone | scheme | device | {' | '.join(f'{fraction:g}' for fraction in fractions)} |"]
    lines += ["|---" * (len(fractions) + 3) + "|"]
    for backbone, scheme in dict.fromkeys((trial["backbone"], trial["scheme"]) for trial in trials):
        own = [trial for trial in trials if (trial["backbone"], trial["scheme"]) == (backbone, scheme)]
        for target in dict.fromkeys(trial["target"] for trial in own):
            found = {trial["fraction"]: trial["psnr"] for trial in own if trial["target"] == target}
            lines.append(
                f"| {backbone} | {scheme} | {target} | {' | '.join(f'{found[one]:.2f}' for one in fractions)} |"
            )
        means = [statistics.fmean(trial["psnr"] for trial in own if trial["fraction"] == one) for one in fractions]
        lines.append(f"| {backbone} | {scheme} | **mean** | {' | '.join(f'{mean:.2f}' for mean in means)} |")
    return "\n".join([*lines, "", f"{_recorded(report)}."])


def maml_collapse_table(report: dict[str, Any]) -> str:
    """Before and after fine-tuning, and the L1 loss with either kind of statistics."""
    head = ["network", "order", "inner rate", "query L1", "L1 by batch statistics", "by kept ones"]
    lines = [f"| {' | '.join([*head, 'meta-trained', 'fine-tuned'])} |", "|---" * (len(head) + 2) + "|"]
    for row in report["rows"]:
        losses = [f"{row[name]:.4f}" for name in ("query_l1", "l1_by_batch_statistics", "l1_by_kept_statistics")]
        quality = [f"{row[name]:.2f} dB" for name in ("meta_trained_psnr", "fine_tuned_psnr")]
        lines.append(
            f"| {' | '.join([row['network'], row['order'], format(row['inner_rate'], 'g'), *losses, *quality])} |"
        )
    given = f"the input has {report['input_psnr']:.2f} dB"
    return "\n".join(
        [*lines, "", f"{_dated(report)}, {report['steps']} and {report['finetune_steps']} steps; {given}."]
    )


def _mean(trials: list[Trial], target: str, arm: str) -> float | None:
    """Over seeds."""
    found = [trial["psnr"] for trial in trials if (trial["target"], trial["arm"]) == (target, arm)]
    return statistics.fmean(found) if found else None


def _dated(report: dict[str, Any]) -> str:
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    return f"`{report['command']}`, {report['date'][:10]}, commit `{report['commit']}`: {machine}"


def _recorded(report: dict[str, Any]) -> str:
    steps = f"{report['transfer_steps']} + {report['finetune_steps']} steps of {report['batch']} crops"
    seeds = f"{report['seeds']} seed{'s' * (report['seeds'] != 1)}"
    unseen = "whole" if report["side"] is None else f"the middle {report['side']}×{report['side']}"
    shown = f"up to {report['images']} unseen images, {unseen}"
    return f"{_dated(report)}, {report['shots']} pairs, {steps}{trained_in(report)}, {seeds}, {shown}"
