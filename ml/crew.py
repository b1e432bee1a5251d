"""Several processes that compute one training step together: each a part of the batch, on a device of its own.

One of them, the leader, runs the job; the helpers know nothing of it. For every step the leader gives them its
weights, each computes the gradient of its part, and the leader adds them up and makes the step. So there is one
optimizer, one checkpoint and one who decides, and helpers cannot drift away: what they had before a step is overwritten
by it. Over the wire goes as much as when all exchange gradients: weights one way, gradients the other.
"""

import ctypes
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _abort_process_group, _set_pg_timeout, _world

LEADER: Final = 0
SILENCE: Final = timedelta(minutes=30)  # Between steps the leader may measure, and wait for a database.
REASSURE_EVERY: Final = SILENCE / 10  # Where the leader computes alone, step after step.
MEETING: Final = timedelta(minutes=1)  # From having loaded everything to having found each other.
LOOK_EVERY: Final = timedelta(seconds=1)  # Whether all helpers live, while the leader waits for them.
POLL_EVERY_S: Final = 1e-4
HELPER: Final = ("-m", "ml.helper")
SOURCE: Final = Path(__file__).resolve().parent.parent


class HelperLost(Exception):
    """A process of the crew has died or does not answer; the job may be resumed by another crew."""


class Order(IntEnum):
    """What the leader tells its helpers."""

    ENLIST = 1  # Followed by what the steps need.
    TRANSFER = 2
    FINETUNE = 3
    STAND_BY = 4  # There is nothing to do yet, but the leader lives.


@dataclass(eq=False)  # It stands for processes, and is like no other.
class Crew:
    """This process among those that compute a step. Alone it does all of it, and pays nothing for being a crew."""

    rank: int = LEADER
    size: int = 1
    helpers: tuple[subprocess.Popen[bytes], ...] = ()  # The leader's.
    _last_order_s: float = field(default_factory=time.monotonic, init=False)  # When the leader gave it.

    def part(self, batch: int) -> range:
        """The samples of a batch that are this process's."""
        return range(self.rank, batch, self.size)

    def total(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The sum over the crew, at every process. Raises HelperLost."""
        if self.size == 1:
            return value
        summed = value.detach().clone()
        self._wait(dist.all_reduce(summed, async_op=True), summed)
        return summed

    def enlist(self, needed: Callable[[], Any]) -> None:
        """Give the helpers what the steps need; it travels pickled, and should hold nothing of a device."""
        if self.size > 1:
            self._order(Order.ENLIST)
            document = torch.frombuffer(bytearray(pickle.dumps(needed())), dtype=torch.uint8)
            self._broadcast(torch.tensor(len(document)))
            self._broadcast(document)

    def begin(self, order: Order, candidate: int, step: int, network: nn.Module) -> None:
        """Have the helpers compute their part of a step with these weights. Raises HelperLost."""
        if self.size > 1:
            self._order(order, candidate, step)
            self.share_weights(network)

    def reassure(self) -> None:
        """Let the helpers hear every so often that their leader lives; one that is silent for long they take for gone.

        Raises HelperLost.
        """
        if self.size > 1 and time.monotonic() - self._last_order_s > REASSURE_EVERY.total_seconds():
            self._order(Order.STAND_BY)

    def _order(self, order: Order, candidate: int = 0, step: int = 0) -> None:
        self._broadcast(torch.tensor([order, candidate, step]))
        self._last_order_s = time.monotonic()

    def next_order(self) -> tuple[Order, int, int]:
        """What a helper shall do next: with which candidate, at which step."""
        told = torch.zeros(3, dtype=torch.int64)
        self._broadcast(told)
        order, candidate, step = told.tolist()
        return Order(order), candidate, step

    def enlisted(self) -> Any:
        """What a helper is given by `enlist`."""
        length = torch.tensor(0)
        self._broadcast(length)
        document = torch.empty(int(length), dtype=torch.uint8)
        self._broadcast(document)
        return pickle.loads(document.numpy().tobytes())  # noqa: S301 - of this process's own parent

    def share_weights(self, network: nn.Module) -> None:
        """Overwrite every process's weights with the leader's."""
        parameters = list(network.parameters())
        weights = torch.cat([parameter.detach().flatten() for parameter in parameters])  # (n,)
        self._broadcast(weights)
        if self.rank != LEADER:
            with torch.no_grad():
                for parameter, values in in_parts(weights, parameters):
                    parameter.copy_(values)

    def gather(self, network: nn.Module, loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Add up every process's gradients in the leader's, and return the sum of their losses to it."""
        if self.size == 1:
            return loss.detach()
        parameters = list(network.parameters())
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach()[None]])  # (n + 1,)
        self._wait(dist.reduce(flat, LEADER, async_op=True), flat)
        if flat.is_cuda and self.rank == LEADER:
            self._wait_for_the_device()
        for parameter, values in in_parts(flat[:-1], parameters):
            parameter.grad = torch.empty_like(parameter).copy_(values)  # In the memory layout of the weights.
        return flat[-1]

    def _broadcast(self, tensor: Tensor) -> None:
        self._wait(dist.broadcast(tensor, LEADER, async_op=True), tensor)

    def _wait(self, work: dist.Work, tensor: Tensor) -> None:
        """Wait until a collective operation is done; on an accelerator, have what follows wait. Raises HelperLost.

        A connection that breaks just when gloo begins to send on it may go unnoticed, and the operation never ends. So
        the leader looks after its helpers itself.
        """
        with losing_helpers():
            while self.helpers and not tensor.is_cuda and not work.is_completed():
                with suppress(RuntimeError):  # Not done yet, or failed.
                    work.wait(LOOK_EVERY)
                if not work.is_completed():
                    self._require_all()
            work.wait()  # Raises what it failed of.

    def _wait_for_the_device(self) -> None:
        """Wait until the accelerator is done: NCCL there waits for a process that is gone as for one that is slow."""
        done = torch.cuda.Event()
        done.record()
        look_at = time.monotonic() + LOOK_EVERY.total_seconds()
        while not done.query():
            if time.monotonic() > look_at:
                self._require_all()
                look_at += LOOK_EVERY.total_seconds()
            time.sleep(POLL_EVERY_S)

    def _require_all(self) -> None:
        for helper in self.helpers:
            if (code := helper.poll()) is not None:
                raise HelperLost(f"a process of the crew has ended with code {code}")


ALONE: Final = Crew()


def in_parts(flat: Float[Tensor, "n"], parameters: Sequence[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each parameter with its part of a vector of all of them, in its shape."""
    for parameter, values in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        yield parameter, values.view(parameter.shape)


@contextmanager
def losing_helpers() -> Iterator[None]:
    """A collective operation fails with a RuntimeError where another process of the crew is gone."""
    try:
        yield
    except RuntimeError as error:
        raise HelperLost(f"a process of the crew does not answer: {error}") from error


def most_devices() -> int | None:
    """How many processes may compute on devices of their own; None on the CPU, which any number may share."""
    return torch.cuda.device_count() if torch.cuda.is_available() else None


def join(rendezvous: Path, rank: int, size: int) -> Crew:
    """Become one of the crew that meets at a file. Returns once all are there."""
    own_devices = most_devices() is not None
    if own_devices:
        torch.cuda.set_device(rank)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # All are on this machine, and nobody else shall connect.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own_devices else "gloo",
        init_method=rendezvous.as_uri(),
        rank=rank,
        world_size=size,
        timeout=MEETING,
    )
    _set_pg_timeout(SILENCE)
    return Crew(rank, size)


@contextmanager
def crew_of(size: int, threads: int) -> Iterator[Crew]:
    """This process as the leader of `size`, no more than there are devices, which share `threads` between them.

    Helpers end with the block, and with this process, however it ends. Raises HelperLost where one does not start.
    """
    size = min(size, most_devices() or size)
    torch.set_num_threads(max(1, threads // size))
    if size == 1:
        yield ALONE
        return
    with tempfile.TemporaryDirectory(prefix="drtl-crew-") as folder:
        rendezvous = Path(folder) / "rendezvous"
        helpers = [start_helper(rendezvous, rank, size, max(1, threads // size)) for rank in range(1, size)]
        try:
            for helper in helpers:
                await_imports(helper)
            with losing_helpers():
                crew = replace(join(rendezvous, LEADER, size), helpers=tuple(helpers))
            yield crew
        except HelperLost:
            abandon_group()
            raise
        finally:
            for helper in helpers:
                helper.kill()
            for helper in helpers:
                with helper:  # Closes its pipe and waits for its end.
                    pass
            if dist.is_initialized():
                dist.destroy_process_group()


def abandon_group() -> None:
    """Leave the group with whatever operation is under way in it, so that this process may join another.

    To destroy it would mean to wait for that operation. On the CPU its thread stays behind, and some kilobytes.
    """
    if dist.is_initialized():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(dist.group.WORLD))  # Its destructor would wait, too.
        _abort_process_group()
    _world.group_count = 0  # Groups are numbered, and meet under their number; one that did not meet has used it up.


def start_helper(rendezvous: Path, rank: int, size: int, threads: int) -> subprocess.Popen[bytes]:
    """Start `ml/helper.py`, which says a word on its standard output when it is ready to meet."""
    command = [sys.executable, *HELPER, str(os.getpid()), str(rendezvous), str(rank), str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def await_imports(helper: subprocess.Popen[bytes]) -> None:
    """Wait until a helper is about to meet the others. Raises HelperLost where it ends instead."""
    assert helper.stdout is not None
    if not helper.stdout.readline():
        raise HelperLost(f"a helper ended with code {helper.wait()} before it could begin")
