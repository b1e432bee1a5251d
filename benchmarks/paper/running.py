"""Makes what is planned, one record after another, and shows how far it is."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from benchmarks.paper.planning import ENOUGH, Estimate, Planned, Stage, in_words
from benchmarks.trials import Trials


class Ticker:
    """Told of every training step; passes it on to the bar of the training that runs."""

    def __init__(self) -> None:
        self.hear: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.hear()


def make(stages: Sequence[Stage], trials: Trials, ticker: Ticker, console: Console) -> None:
    """Make every record; the time left is known after a few. An interruption loses the one that was being made."""
    waiting = [(stage.name, planned) for stage in stages for planned in stage.planned]
    estimate = Estimate()
    columns = (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        whole = progress.add_task("all", total=len(waiting), left="")
        for place, (name, planned) in enumerate(waiting):
            own = progress.add_task(f"{name}: {named(planned)}", total=max(1, planned.steps), left="")
            ticker.hear = _advance(progress, own)
            started = time.monotonic()
            trials.measure(planned.about, planned.run)
            took = time.monotonic() - started
            progress.remove_task(own)
            estimate.learn(planned, took)
            left = estimate.seconds(each for _, each in waiting[place + 1 :])
            about = f"about {in_words(left)} left" if left is not None and estimate.trainings >= ENOUGH else ""
            progress.update(whole, advance=1, left=about)
            record = trials.report["trials"][-1]
            quality = f" {record['psnr']:.2f} dB" if "psnr" in record else ""
            said = f"[{place + 1}/{len(waiting)}] {name}: {named(planned)}:{quality} in {in_words(took)}"
            console.print(f"{said}; {about}" if about else said, markup=False, highlight=False, soft_wrap=True)
            if estimate.trainings == ENOUGH and planned.steps and place + 1 < len(waiting):
                said = forecast(stages, waiting[place + 1 :], estimate)
                console.print(said, markup=False, highlight=False, soft_wrap=True)


def forecast(stages: Sequence[Stage], waiting: Sequence[tuple[str, Planned]], estimate: Estimate) -> str:
    """How long each part will take, as far as is known."""
    parts = []
    for stage in stages:
        own = [planned for name, planned in waiting if name == stage.name]
        if own and (seconds := estimate.seconds(own)) is not None:
            parts.append(f"{stage.name} {in_words(seconds)}")
    return f"By the first {estimate.trainings} trainings, the rest will take about: {', '.join(parts)}."


def named(planned: Planned) -> str:
    """The values of what it is about, without those that say nothing by themselves."""
    return ", ".join(f"{name} {value}" if isinstance(value, int) else value for name, value in planned.about.items())


def _advance(progress: Progress, task: TaskID) -> Callable[[], None]:
    return lambda: progress.advance(task)
