"""How well images are matched with models, and results trusted, as Markdown tables."""

from typing import Any


def match_table(report: dict[str, Any]) -> str:
    """Own images told from foreign ones, the nearest model, the words, the two ways side by side, cost."""
    lines = ["| model of | own against other devices | against photographs | against its own, altered | against all |"]
    lines += ["|---|---|---|---|---|"]
    for name, areas in report["descriptor"]["auc"].items():
        cells = [f"{areas[kind]:.3f}" if kind in areas else "–" for kind in ("other_devices", "photographs", "altered")]
        lines.append(f"| {name} | {' | '.join(cells)} | {areas['all']:.3f} |")
    lines += ["", "| with | mean AUC | auto of 3 real | auto of all | own: close / near / far | altered | foreign |"]
    lines += ["|---|---|---|---|---|---|---|"]
    by_condition = {f"{report['shots']} pairs, whole images": report["descriptor"] | {"words": report["words"]}}
    by_condition |= {f"{pairs} pairs": judged for pairs, judged in report["few_pairs"].items()}
    by_condition |= {f"images of {side}×{side}": judged for side, judged in report["small_images"].items()}
    for condition, judged in by_condition.items():
        figures = [f"{judged['mean_auc']:.3f}", *(f"{judged[f'auto_accuracy_{of}']:.0%}" for of in ("real", "all"))]
        shares = [
            " / ".join(f"{share:.0%}" for share in judged["words"][kind].values())
            for kind in ("own", "altered", "foreign")
        ]
        lines.append(f"| {' | '.join([condition, *figures, *shares])} |")
    both, cost = report["head_to_head"], report["cost"]
    lines += [
        "",
        f"| way, over {len(both['models'])} models | mean AUC | auto of 3 real | auto of all | CPU time |",
        "|---|---|---|---|---|",
    ]
    spent = {
        "descriptor": f"{cost['512x512_cpu_ms']:.0f} ms an image",
        "drn": f"{both['drn_cpu_ms_per_image_and_model']:.0f} ms an image and model",
    }
    for way, words in (("descriptor", "descriptor of the image"), ("drn", "DRN node against the model's own result")):
        judged = both[way]
        figures = [f"{judged['mean_auc']:.3f}", *(f"{judged[f'auto_accuracy_{of}']:.0%}" for of in ("real", "all"))]
        lines.append(f"| {' | '.join([words, *figures, spent[way]])} |")
    lines += ["", "| model of | close: images, gain, share that lose | near | far |", "|---|---|---|---|"]
    for name, by_word in report["gain_db_by_word"].items():
        cells = [
            f"{said['images']}, {said['mean_gain_db']:+.2f} dB, {said['share_that_lose']:.0%}" if said else "–"
            for said in (by_word.get(word) for word in ("close", "near", "far"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| size of the image | CPU time of sampling and describing |", "|---|---|"]
    lines += [f"| {what.removesuffix('_cpu_ms').replace('x', '×')} | {ms:.1f} ms |" for what, ms in cost.items()]
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    chosen = f"{report['images_per_kind']} images of every kind, networks of {report['finetune_steps']} steps"
    return "\n".join([*lines, "", f"{_dated(report)}: {machine}, seed {report['seed']}, {chosen}."])


def trust_table(report: dict[str, Any]) -> str:
    """Gain of the self-ensemble, and rank correlation of its spread with the error."""
    head = ["target", "input", "one result", "mean of eight", "ρ of pixels", "ρ of patches", "ρ of texture"]
    head += ["spread: median, 99 %", "CPU time"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in report["targets"].items():
        quality = [f"{row[f'{of}_psnr']:.2f} dB" for of in ("input", "single", "ensemble")]
        ranks = [f"{row[f'spearman_{of}']:.2f}" for of in ("pixels", "patches", "patches_of_texture")]
        spread = f"{row['median_spread_levels']:.2f}, {row['p99_spread_levels']:.2f} levels"
        lines.append(f"| {' | '.join([name, *quality, *ranks, spread])} | {row['cost_ratio']:.1f}× |")
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    chosen = f"{report['images']} unseen images a target, the middle {report['side']}×{report['side']} of each"
    steps = f"networks of {report['finetune_steps']} steps"
    return "\n".join([*lines, "", f"{_dated(report)}: {machine}, seed {report['seed']}, {chosen}, {steps}."])


def _dated(report: dict[str, Any]) -> str:
    return f"Recorded on {report['date'][:10]} at commit `{report['commit']}`"
