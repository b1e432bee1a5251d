"""How jobs, graphs, metrics and models look in a terminal."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from app.listing import Listing

Json = dict[str, Any]
ShowProgress = Callable[[str, float, float | None], None]

STATE_STYLE: Final = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
}
BAR_CELLS: Final = 10
PLAIN_EVERY: Final = 0.1  # without a terminal, a line for every tenth of the job


def clock(seconds: float | None) -> str:
    """Seconds as m:ss, or a dash."""
    return "–" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def decibel(value: float | None) -> str:
    """A PSNR, or a dash where it is infinite, which JSON cannot say."""
    return "–" if value is None else f"{value:.2f} dB"


class Stopwatch:
    """Prints lines with the time since it was made."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{clock(self.elapsed_s):>5}[/]  {text}", soft_wrap=True, highlight=False)


def phase_words(phase: str | None) -> str:
    return (phase or "starting").replace("_", " ")


def phase_name(job: Json) -> str:
    return phase_words(job.get("phase")) if job["state"] == "running" else str(job["state"])


@contextmanager
def progress_of(console: Console) -> Iterator[ShowProgress]:
    """A function that shows phase, progress (0…1) and seconds to go: as a bar, or in lines without a terminal."""
    if not console.is_terminal:
        shown: tuple[str, int] | None = None

        def line(phase: str, progress: float, eta_s: float | None) -> None:
            nonlocal shown
            now = phase, int(progress / PLAIN_EVERY)
            if now != shown:
                shown = now
                console.print(f"       {phase:<12} {progress:4.0%}  to go {clock(eta_s)}")

        yield line
        return

    columns = (
        TextColumn("       {task.description:<12}"),
        BarColumn(bar_width=40),
        TaskProgressColumn(),
        TextColumn("to go {task.fields[eta]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("queued", total=1.0, eta="–")

        def bar(phase: str, progress: float, eta_s: float | None) -> None:
            bars.update(task, completed=progress, description=phase, eta=clock(eta_s))

        yield bar


@contextmanager
def upload_of(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A function that shows bytes sent of bytes in all, with speed and time to go; silent without a terminal."""
    columns = (
        TextColumn("       uploading   "),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None)

        def sent(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield sent


def pair_warnings(pairs: Iterable[Json]) -> Text:
    """What the service noticed about pairs that are not as they should be, a line each."""
    lines = [f"  {pair['name']}: {pair['verdict']}. {pair['note']}" for pair in pairs if pair["verdict"] != "good"]
    return Text("\n".join(lines), style="yellow")


def titled_table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))


def gamma_table(graph: Json) -> Group:
    """The auxiliary distortions by falling γ, with its spread over the pairs, and the verdict in words."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    pairs = len(nodes[graph["graph"]["target"]].get("samples", []))
    table = titled_table("Which known distortions the target resembles")
    table.collapse_padding, table.pad_edge = True, False  # The longest name fits into 80 columns.
    for heading in ("", "distortion", "γ", "± std", "gain", "weight", "strength"):
        table.add_column(heading, justify="left" if heading == "distortion" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for rank, name in enumerate(graph["graph"]["ranking"], start=1):
        node = nodes[name]
        table.add_row(
            str(rank),
            name,
            f"{node['gamma']:.2f}",
            f"{node['gamma_std']:.2f}",
            "–" if node.get("gain_db") is None else f"{node['gain_db']:+.2f} dB",
            f"{node['weight']:.0%}",
            f"{node['psnr_db']:.1f} dB",
            Text("█" * round(BAR_CELLS * max(0.0, node["gamma"])), style="cyan" if rank == 1 else "blue"),
        )
    spread = f"Spread over {pairs} pairs. The target itself: {nodes[graph['graph']['target']]['psnr_db']:.1f} dB."
    return Group(table, Text(graph["graph"]["sentence"]), Text(spread, style="dim"))


def metrics_table(metrics: Json) -> Table:
    """PSNR and SSIM on the pairs that the training never saw."""
    held_out = metrics["held_out"]
    how = "the held-out halves of" if metrics["protocol"] == "halves" else "held-out"
    title = f"On {how} {'pairs' if len(held_out) > 1 else 'pair'}: {', '.join(held_out)}"
    table = titled_table(title)
    for heading in ("", "PSNR", "SSIM", "against input"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = (
        ("input", "input"),
        ("baseline (fine-tuned from nothing)", "baseline"),
        (f"result ({metrics['chosen']})", "result"),
    )
    for label, key in rows:
        given, reached = metrics["input"]["psnr"], metrics[key]["psnr"]
        gain = f"{reached - given:+.2f} dB" if key != "input" and None not in (given, reached) else ""
        ssim = metrics[key]["ssim"]
        style = "bold" if key == "result" else ""
        table.add_row(label, decibel(reached), "–" if ssim is None else f"{ssim:.4f}", gain, style=style)
    return table


def jobs_table(jobs: Sequence[Json], state: str | None = None) -> Listing | str:
    """The jobs, a row each; all of them are in the state if one is given."""
    if not jobs:
        return "There is no job." if state is None else f"There is no job that is {state}."
    rows = []
    for job in jobs:
        running = job["state"] == "running"
        state = f"{phase_name(job)} {job['progress']:.0%}" if running else job["state"]
        style = STATE_STYLE.get(job["state"], "")
        left = clock(job["eta_s"]) if running else ""
        created = day_and_time(job["created_at"])[5:]  # Without the year it all fits 80 columns.
        rows.append((job["id"], job["name"], Text(state, style=style), left, created))
    return Listing(("job", "model", "state", "to go", "created"), rows, folding={"model"})


def job_panel(job: Json) -> Panel:
    """Everything about one job that fits a screen."""
    lines: list[Any] = [Text.assemble("state  ", (job["state"], STATE_STYLE.get(job["state"], "")))]
    if job["state"] == "running":
        lines.append(Text(f"phase  {phase_name(job)}, {job['progress']:.0%}, {clock(job.get('eta_s'))} to go"))
    if place := job.get("queue_position"):
        lines.append(Text(f"place  about {place} in the queue, 1 being the next"))
    if error := job.get("error"):
        lines.append(Text(f"error  {error['code']}: {error['message']}", style="red"))
    if model := job.get("model"):
        lines.append(Text(f"model  {model['reference']}"))
    if job.get("explanation"):
        lines.append(Text(f"{str(job['verdict']).replace('_', ' ')}: {job['explanation']}"))
    if job.get("metrics"):
        lines.append(metrics_table(job["metrics"]))
    return Panel(Group(*lines), title=f"{job['id']} · {job['name']}", title_align="left")


def models_table(models: Sequence[Json]) -> Listing | str:
    """The models, a row each."""
    if not models:
        return "There is no model."
    rows = []
    for model in models:
        aliases = ", ".join(f"{alias} → {version}" for alias, version in model["aliases"].items())
        versions = ", ".join(str(version) for version in model["versions"])
        rows.append((model["name"], versions, aliases, day_and_time(model["created_at"])))
    return Listing(("model", "versions", "aliases", "newest from"), rows, folding={"versions", "aliases"})


def card_panel(model: Json) -> Panel:
    """A model's card: what it was made from and how, and what it gains."""
    card = model["card"]
    facts = Table.grid(padding=(0, 2))
    gamma = sorted(card["gamma"].items(), key=lambda entry: -entry[1])
    for name, value in (
        ("aliases", ", ".join(model["aliases"]) or "none: it is used only by its version number"),
        ("network", f"{card['backbone']}, unshuffle {card['unshuffle']}, {card['parameters']:,} parameters"),
        ("scale", f"{card['scale']}×"),
        ("start", f"{card['chosen']}, prior {card['prior']}"),
        ("γ", ", ".join(f"{task} {value:.2f}" for task, value in gamma)),
        ("licence", card["licence"]),
        ("weights", f"sha256 {model['weights_sha256']}"),
        ("made by", f"{model['job_id']}, {day_and_time(model['created_at'])}"),
    ):
        facts.add_row(Text(name, style="dim"), Text(value))
    title = f"{model['name']}@{model['version']}"
    return Panel(Group(facts, Text(), metrics_table(card["metrics"])), title=title, title_align="left")


def day_and_time(iso: str) -> str:
    return iso[:16].replace("T", " ")
