"""Who uses the service meanwhile: clients that post jobs and never give up, cancel some, and restore images."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from drtl_client import Client
from drtl_client.errors import Conflict, DRTLError, Problem, Unreachable
from tests.images import image_pairs

PAIRS: Final = 3
STEPS: Final = 16
GIVE_UP_S: Final = 240.0


@dataclass(frozen=True)
class Variant:
    """One of the few trainings that all jobs are: equal pairs, equal options, so equal weights."""

    seed: int

    def options(self) -> dict[str, Any]:
        return {"scheme": "baseline", "unshuffle": 4, "finetune_steps": STEPS, "seed": self.seed}


VARIANTS: Final = (Variant(0), Variant(1), Variant(2))


@dataclass
class Order:
    """A job as its client knows it."""

    name: str
    key: str
    variant: Variant
    post_at_s: float
    cancel_after_s: float | None  # since it was accepted
    job_id: str | None = None
    accepted_at: float | None = None
    tries: int = 0
    lost_answers: int = 0
    refused: list[str] = field(default_factory=list)
    cancel_answered: bool = False


def orders(
    seed: int, count: int, within_s: float, cancelled: int, variants: Sequence[Variant] = VARIANTS
) -> list[Order]:
    """Jobs that come within that time, some of them cancelled soon after."""
    drawn = random.Random(seed + 1)
    times = sorted(drawn.uniform(0, within_s) for _ in range(count))
    chosen = set(drawn.sample(range(count), cancelled))
    return [
        Order(
            name=f"storm-{number:02}",
            key=f"{seed}-{number}",
            variant=variants[number % len(variants)],
            post_at_s=at_s,
            cancel_after_s=drawn.uniform(0, 8) if number in chosen else None,
        )
        for number, at_s in enumerate(times)
    ]


def pair_files(folder: Path) -> Path:
    """The pairs of every job, as a folder."""
    for name, clean, distorted in image_pairs(PAIRS):
        for kind, content in (("clean", clean), ("distorted", distorted)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{name}.png").write_bytes(content)
    return folder


def place(client: Client, pairs: Path, order: Order) -> None:
    """Post the job with its key until the service says 202, as a program would that must not lose it."""
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        order.tries += 1
        try:
            job = client.jobs.create(pairs, name=order.name, idempotency_key=order.key, **order.variant.options())
        except Unreachable:
            order.lost_answers += 1
        except Problem as problem:
            if problem.status < 500 and problem.status != 409:
                order.refused.append(f"{problem.status} {problem.detail}")
                return
            order.refused.append(f"{problem.status} {problem.code}")
            if isinstance(problem, Conflict) and problem.code == "name-taken":
                return  # Somebody has the name: a job of this order that its key does not know.
        else:
            order.job_id, order.accepted_at = job.id, time.time()
            return
        time.sleep(0.3)


def cancel(client: Client, order: Order) -> None:
    """Ask for the job to stop until the service has heard it."""
    assert order.job_id is not None
    deadline = time.monotonic() + GIVE_UP_S
    while not order.cancel_answered and time.monotonic() < deadline:
        try:
            client.jobs.cancel(order.job_id)
            order.cancel_answered = True
        except DRTLError:
            time.sleep(0.3)


def serve_orders(url: str, pairs: Path, placed: list[Order], stop: threading.Event) -> list[threading.Thread]:
    """Threads, one for each job, that post it at its time and cancel it where that is meant."""
    began = time.monotonic()

    def one(order: Order) -> None:
        if stop.wait(max(0.0, order.post_at_s - (time.monotonic() - began))):
            return
        with Client(url, timeout_s=20.0) as client:
            place(client, pairs, order)
            if order.cancel_after_s is not None and order.job_id is not None:
                stop.wait(order.cancel_after_s)
                cancel(client, order)

    threads = [threading.Thread(target=one, args=(order,), name=order.name) for order in placed]
    for thread in threads:
        thread.start()
    return threads


@dataclass
class Restorations:
    """What became of the images: each is right, or there is an error that says what is the matter."""

    right: int = 0
    wrong: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    no_answer: int = 0
    unclear: list[str] = field(default_factory=list)


def restore(http: httpx.Client, model: str, image: bytes) -> bytes:
    """The image through the model. Raises Problem, or an httpx error where no answer comes."""
    answer = http.post(f"/v1/models/{model}/super-resolve", content=image, headers={"Content-Type": "image/png"})
    if answer.status_code == 202:
        result = f"{answer.headers['Location']}/result"
        while (answer := http.get(result)).status_code == 409 and answer.json()["type"].endswith("/not-ready"):
            time.sleep(0.2)
    if answer.status_code != 200:
        raise Problem(answer.status_code, answer.json())
    return answer.content


def restore_meanwhile(
    url: str, image: bytes, expected: dict[str, bytes], every_s: float, stop: threading.Event, told: Restorations
) -> threading.Thread:
    """A thread that restores images through the undisturbed models, and compares them with what they gave before."""

    def run() -> None:
        names = sorted(expected)
        turn = 0
        with httpx.Client(base_url=url, timeout=40.0) as http:
            while not stop.wait(every_s):
                name = names[turn % len(names)]
                turn += 1
                note(told, lambda name=name: restore(http, f"{name}@1", image) == expected[name])  # type: ignore[misc]

    thread = threading.Thread(target=run, name="images")
    thread.start()
    return thread


def note(told: Restorations, attempt: Callable[[], bool]) -> None:
    try:
        if attempt():
            told.right += 1
        else:
            told.wrong += 1
    except Problem as problem:
        told.problems[problem.type] += 1
    except httpx.TransportError:
        told.no_answer += 1
    except (ValueError, KeyError) as error:
        told.unclear.append(repr(error))
