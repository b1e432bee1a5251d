"""Several processes at one training step: the same result, one that dies, one that is left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ml import checkpoint, finetune, meta, transfer
from ml import crew as crew_module
from ml import race as race_module
from ml.backbones import SameSize
from ml.checkpoint import Trainee
from ml.crew import ALONE, Crew, HelperLost, Order, crew_of
from ml.finetune import FinetuneSchedule
from ml.guidance import TaskMix
from ml.meta import MetaSchedule
from ml.optimizer import adam
from ml.pairs import TargetPair, split
from ml.race import Candidate, Race, Start
from ml.transfer import TransferSchedule

TASKS = ["noise", "blur", "bicubic"]
# Twelve steps of Adam at this rate move a weight by up to 0.012; sums in another order differ by rounding alone, which
# Adam enlarges where a gradient is next to nothing.
RATE, MOST_APART = 1e-3, 2e-5

WEIGHTED, DRAWN = torch.tensor([0.6, 0.3, 0.0]), torch.tensor([0.5, 0.2, 0.3])
WAYS: list[tuple[Start, TaskMix | None, MetaSchedule | None]] = [
    ("scratch", None, None),
    ("guided-transfer", TaskMix(WEIGHTED, DRAWN), None),
    ("guided-maml", TaskMix(WEIGHTED), MetaSchedule(tasks=1)),
]

MakeRace = Callable[..., Race]

# A helper that computes in float32 also where the processor would do bfloat16 better.
EXACT_HELPER = """
import contextlib, ml.finetune, ml.transfer, ml.helper
for module in (ml.finetune, ml.transfer):
    module.autocast = lambda on: contextlib.nullcontext()
ml.helper.main()
"""

# A helper whose end the leader's connections do not show: a child of it holds them open.
UNHEARD_HELPER = """
import os, time
from ml import crew, helper
join = crew.join
def joined(*told):
    met = join(*told)
    meant = os.getpid()
    if os.fork() == 0:
        while os.getppid() == meant:
            time.sleep(0.1)
        time.sleep(12.0)
        os._exit(0)
    return met
crew.join = joined
helper.main()
"""

# A helper that takes longer for its first step than the leader waits before it looks whether all live.
SLOW_HELPER = EXACT_HELPER.replace(
    "ml.helper.main()",
    """
from ml.crew import Crew
gather = Crew.gather
def late(*given):
    import time
    time.sleep(2.5)
    Crew.gather = gather
    return gather(*given)
Crew.gather = late
ml.helper.main()
""",
)


# A helper that takes a leader that says nothing for two seconds for gone.
IMPATIENT_HELPER = EXACT_HELPER.replace(
    "ml.helper.main()",
    """
from datetime import timedelta
import ml.crew
ml.crew.SILENCE = timedelta(seconds=2)
ml.helper.main()
""",
)


@pytest.fixture
def make_race(
    random_network: Callable[..., SameSize],
    target_pairs: Callable[..., list[TargetPair]],
    photographs: dict[str, Tensor],
) -> MakeRace:
    """A candidate of each kind, batches of three, which two processes cannot share evenly."""

    def make(crew: Crew) -> Race:
        transfers = TransferSchedule(steps=4, batch=3, crop=16, learning_rate=RATE)
        finetunes = FinetuneSchedule(steps=4, batch=3, crop=16, learning_rate=RATE)
        candidates = []
        for index, (start, mix, looking_ahead) in enumerate(WAYS):
            network = random_network(2, seed=index)
            # As all networks are built.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # Torch's stubs lack it.
            trainee = Trainee(network, adam(network, RATE))
            candidates.append(Candidate(start, trainee, mix, transfers, finetunes, looking_ahead))
        race = Race(candidates, split(target_pairs(4, 48, 50), seed=0), list(photographs.values()), TASKS, seed=7)
        race.enlist(crew)
        return race

    return make


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (finetune, meta, transfer):
        monkeypatch.setattr(module, "autocast", lambda on: nullcontext())
    monkeypatch.setattr(crew_module, "HELPER", ("-c", EXACT_HELPER))


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that are started for a crew; all must be gone in the end."""
    started: list[subprocess.Popen[bytes]] = []
    start = crew_module.start_helper

    def note(rendezvous: Path, rank: int, size: int, threads: int) -> subprocess.Popen[bytes]:
        started.append(start(rendezvous, rank, size, threads))
        return started[-1]

    monkeypatch.setattr(crew_module, "start_helper", note)
    yield started
    assert started
    assert all(helper.poll() is not None for helper in started)


def ran(race: Race, until: int | None = None, save: Path | None = None) -> list[float]:
    """The losses of a race, all of it or until so many steps are done, when it is saved and left."""
    losses: list[float] = []

    def after_step(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        losses.append(float(loss))
        if len(losses) == until:
            assert save is not None
            race.save(save)
            raise InterruptedError

    try:
        race.run(after_step)
    except InterruptedError:
        assert len(losses) == until
    return losses


def state_of(race: Race) -> dict[str, Tensor]:
    return {
        f"{index}/{name}": value.clone()
        for index, candidate in enumerate(race.candidates)
        for name, value in candidate.trainee.tensors().items()
    }


def test_the_parts_of_a_batch_are_the_batch() -> None:
    for size in range(1, 6):
        parts = [list(Crew(rank, size).part(7)) for rank in range(size)]
        assert sorted(sample for part in parts for sample in part) == list(range(7))


@pytest.mark.usefixtures("exact")
def test_two_processes_train_what_one_does_and_resume_to_the_bit(
    make_race: MakeRace, helpers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    alone = make_race(ALONE)
    before = state_of(alone)
    losses = ran(alone)
    with crew_of(2, 2) as crew:
        assert (crew.size, torch.get_num_threads()) == (2, 1)
        together = make_race(crew)
        assert ran(together) == pytest.approx(losses, rel=1e-5)
        first = make_race(crew)
        ran(first, 6, tmp_path / "checkpoint")
        resumed = make_race(crew)
        resumed.resume(*checkpoint.load(tmp_path / "checkpoint", resumed.plan))
        ran(resumed)
    expected, shared, again = state_of(alone), state_of(together), state_of(resumed)
    weights = [name for name in expected if "network." in name]
    assert max(float((expected[name] - before[name]).abs().max()) for name in weights) > 100 * MOST_APART
    assert max(float((expected[name] - shared[name]).abs().max()) for name in weights) < MOST_APART
    assert all(torch.equal(shared[name], again[name]) for name in shared)
    assert len(helpers) == 1


@pytest.mark.parametrize("helper", [crew_module.HELPER, ("-c", UNHEARD_HELPER)], ids=["heard", "unheard"])
def test_a_helper_that_dies_ends_the_attempt_and_leaves_nobody_behind(
    make_race: MakeRace,
    helpers: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    helper: tuple[str, ...],
) -> None:
    monkeypatch.setattr(crew_module, "HELPER", helper)
    killed = 0.0

    def kill(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        nonlocal killed
        if not killed:
            helpers[1].kill()
            killed = time.monotonic()

    with pytest.raises(HelperLost), crew_of(3, 1) as crew:
        make_race(crew).run(kill)
    assert 0.0 < time.monotonic() - killed < 10.0
    with crew_of(2, 1) as another:
        make_race(another).run(lambda *step: None)


@pytest.mark.usefixtures("exact", "helpers")
def test_a_slow_helper_is_waited_for(make_race: MakeRace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "HELPER", ("-c", SLOW_HELPER))
    with crew_of(2, 1) as crew:
        began = time.monotonic()
        losses = ran(make_race(crew))
        assert time.monotonic() - began > 2.5
    assert losses == pytest.approx(ran(make_race(ALONE)), rel=1e-5)


def test_a_leader_that_computes_alone_for_long_does_not_lose_its_helpers(
    make_race: MakeRace, helpers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def slowly(*given: Any) -> Tensor:
        time.sleep(0.8)  # Four times it is longer than a helper's patience.
        return meta.meta_step(*given)

    monkeypatch.setattr(crew_module, "HELPER", ("-c", IMPATIENT_HELPER))
    monkeypatch.setattr(crew_module, "REASSURE_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(race_module, "meta_step", slowly)
    with crew_of(2, 1) as crew:
        race = make_race(crew)
        race.candidates = race.candidates[2:]
        ran(race, 4, tmp_path / "checkpoint")
        assert race.steps_done() == 4
        crew.begin(Order.FINETUNE, 2, 0, race.candidates[0].network)
        assert helpers[0].poll() is None


@pytest.mark.usefixtures("helpers")
def test_helpers_are_told_to_stand_by_no_more_often_than_they_need(
    make_race: MakeRace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[Order] = []
    order = Crew._order

    def note(crew: Crew, what: Order, *about: int) -> None:
        told.append(what)
        order(crew, what, *about)

    monkeypatch.setattr(Crew, "_order", note)
    with crew_of(2, 1) as crew:
        race = make_race(crew)
        race.candidates = race.candidates[2:]
        ran(race, 4, tmp_path / "checkpoint")
        assert told == [Order.ENLIST]
        monkeypatch.setattr(crew_module, "REASSURE_EVERY", timedelta(0))
        crew.reassure()
        crew.reassure()
        assert told == [Order.ENLIST, Order.STAND_BY, Order.STAND_BY]


@pytest.mark.usefixtures("helpers")
def test_a_helper_that_dies_before_all_have_met_does_not_keep_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(crew_module, "HELPER", ("-c", "print('ready')"))
        patched.setattr(crew_module, "MEETING", timedelta(seconds=2))
        with pytest.raises(HelperLost), crew_of(2, 1):
            pytest.fail("nobody was there to meet")
    with crew_of(2, 1) as another:
        assert another.size == 2


@pytest.mark.usefixtures("helpers")
def test_what_stops_the_leader_stops_its_helpers(make_race: MakeRace) -> None:
    def cancel(phase: str, candidate: str, step: int, loss: Tensor) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), crew_of(2, 1) as crew:
        make_race(crew).run(cancel)


def test_more_processes_than_samples_are_refused(make_race: MakeRace) -> None:
    with pytest.raises(ValueError, match="crew: 4 processes cannot share batches of 3"):
        make_race(Crew(0, 4))


LEADER = """
import time
from ml import crew
start = crew.start_helper
def noted(*told):
    helper = start(*told)
    print(helper.pid, flush=True)
    return helper
crew.start_helper = noted
with crew.crew_of(2, 1):
    print("together", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="the kernel's process table is read")
def test_helpers_do_not_outlive_a_leader_that_is_killed() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, cwd=root) as leader:
        assert leader.stdout is not None
        helper = int(leader.stdout.readline())
        assert leader.stdout.readline() == b"together\n"
        os.kill(leader.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while is_running(helper):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
