"""Candidates for one target, trained side by side and measured on the held-out pairs; the race can stop and resume.

Every candidate is some start followed by the same fine-tuning, measured at a third, at two thirds and at the end of
it; of those weights the best count, since few pairs are soon overfitted. Of the candidates that start from knowledge,
all but the best stop at the last milestone but one; sooner, those with a gentle learning rate look better than they
will be. Fine-tuning from nothing runs to the end: it is the baseline that the others are compared with and, on a
target far from all known distortions, the likely winner.

Those that began with the same weights, the prior's, are also averaged at the end, without another step: what each of
them fitted by chance is halved, what all of them learnt stays (Wortsman et al., "Model soups", ICML 2022). The average
counts as one more candidate (docs/adr/0037-an-average-of-candidates.md).
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ml import checkpoint
from ml.backbones import SameSize
from ml.checkpoint import Trainee
from ml.crew import ALONE, Crew, Order
from ml.evaluate import Quality, mean, quality_of
from ml.finetune import FinetuneSchedule, finetune_gradient, finetune_step
from ml.guidance import TaskMix
from ml.lpips import Lpips
from ml.meta import MetaSchedule, meta_step
from ml.optimizer import adam
from ml.pairs import Split, TargetPair, pairs_at_hand
from ml.placement import at_hand
from ml.read_out import crops_of_a_refit, fit_last_layer
from ml.transfer import TransferSchedule, transfer_gradient, transfer_step

Start = Literal["scratch", "prior", "uniform-transfer", "guided-transfer", "uniform-maml", "guided-maml", "average"]
MILESTONES: Final = (1 / 3, 2 / 3, 1)  # shares of the fine-tuning steps

# After every step: (phase, candidate, step done by it, loss; an accelerator may still be computing it)
AfterStep = Callable[[str, Start, int, Float[Tensor, ""]], None]
Tick = Callable[[], None]  # Called every so often; may raise to stop.


@dataclass
class Candidate:
    """One way to reach a model for the target.

    `trainee.step` counts auxiliary steps first (where it transfers), then fine-tuning steps.
    """

    start: Start
    trainee: Trainee
    mix: TaskMix | None  # What the transfer learns from, None without one.
    transfer: TransferSchedule
    finetune: FinetuneSchedule
    meta: MetaSchedule | None = None  # Where the transfer is meta-learning.
    linear_probe: bool = False  # Whether fine-tuning begins with a last layer fitted in closed form.
    refit: bool = False  # Whether it ends with one.
    from_prior: bool = False  # Whether its first weights are the prior's.
    measured: dict[int, list[Quality]] = field(
        default_factory=dict
    )  # Fine-tuning steps → quality of each held-out pair.
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False

    @property
    def network(self) -> SameSize:
        assert isinstance(self.trainee.network, SameSize)
        return self.trainee.network

    @property
    def transfer_steps(self) -> int:
        return self.transfer.steps if self.mix is not None else 0

    @property
    def finetune_steps_done(self) -> int:
        return max(0, self.trainee.step - self.transfer_steps)

    @property
    def best_steps(self) -> int:
        """The fine-tuning steps at which it measured best; of equals, the fewest."""
        return max(self.measured, key=lambda steps: mean(self.measured[steps]).psnr)

    @property
    def quality(self) -> list[Quality]:
        """Its best, for each held-out pair."""
        return self.measured[self.best_steps]

    def measure(self, split: Split, lpips: Lpips | None, tick: Tick) -> None:
        """Measure the present weights on the held-out pairs, unless that is done; keep them if they are the best."""
        steps = self.finetune_steps_done
        if steps not in self.measured:
            quality = []
            for pair in split.held_out:
                tick()
                quality += quality_of(self.network, [pair], lpips)
            self.measured[steps] = quality
            if self.best_steps == steps:
                self.best_weights = {name: value.clone() for name, value in self.network.state_dict().items()}


@dataclass(frozen=True)
class Lane:
    """What a helper of a crew must know of a candidate."""

    network: SameSize
    mix: TaskMix | None
    transfer: TransferSchedule
    finetune: FinetuneSchedule


@dataclass(frozen=True)
class Course:
    """What a helper of a crew must know of a race: enough to compute the gradient of any step, with given weights."""

    lanes: list[Lane]
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]]
    tasks: Sequence[str]
    pairs: Sequence[TargetPair]
    seed: int

    def to(self, device: torch.device) -> "Course":
        """The same with its networks on a device, and its images where they are at hand for it."""
        return replace(
            self,
            lanes=[replace(each, network=each.network.to(device)) for each in self.lanes],
            clean_images=at_hand(device, self.clean_images),
            pairs=pairs_at_hand(device, self.pairs),
        )

    def gradient(self, crew: Crew, order: Order, candidate: int, step: int) -> None:
        """Compute this process's part of a step that the leader has begun."""
        lane = self.lanes[candidate]
        crew.share_weights(lane.network)
        if order is Order.TRANSFER:
            assert lane.mix is not None
            task = (lane.mix.gamma, lane.transfer, self.seed, step, lane.mix.chances, crew)
            transfer_gradient(lane.network, self.clean_images, self.tasks, *task)
        else:
            finetune_gradient(lane.network, self.pairs, lane.finetune, self.seed, step, crew)


@dataclass
class Race:
    """All candidates with what they train on."""

    candidates: list[Candidate]
    split: Split
    clean_images: Sequence[UInt8[Tensor, "3 _ _"]]
    tasks: Sequence[str]
    seed: int
    held_back: frozenset[Start] = frozenset()  # Trained for comparison, never chosen.
    plan: str = ""  # What the race depends on; a checkpoint of another plan is refused.
    crew: Crew = ALONE  # Who computes the steps.
    lpips: Lpips | None = None  # With what else to measure.
    average: Candidate | None = None  # Of those that began with the prior; known once all are measured.

    def enlist(self, crew: Crew) -> None:
        """Have a crew compute the steps. Raises ValueError where a batch has not a sample for each of them."""
        batch = min(min(each.transfer.batch, each.finetune.batch) for each in self.candidates)
        if crew.size > batch:
            raise ValueError(f"crew: {crew.size} processes cannot share batches of {batch}")
        self.crew = crew
        crew.enlist(self.course)

    def course(self) -> Course:
        """A copy for helpers, on the CPU."""
        lanes = [Lane(deepcopy(each.network).cpu(), each.mix, each.transfer, each.finetune) for each in self.candidates]
        images = [image.cpu() for image in self.clean_images]
        pairs = [pair.to(torch.device("cpu")) for pair in self.split.train]
        return Course(lanes, images, self.tasks, pairs, self.seed)

    @property
    def milestones(self) -> list[int]:
        """The fine-tuning steps at which candidates are measured."""
        steps = self.candidates[0].finetune.steps
        return sorted({max(1, round(share * steps)) for share in MILESTONES})

    def contenders(self) -> list[Candidate]:
        """Candidates that start from knowledge, of which one runs to the end."""
        return [candidate for candidate in self.candidates if candidate.start != "scratch"]

    def planned_steps(self) -> int:
        """All steps of the race, whoever wins."""
        finetune = self.candidates[0].finetune.steps
        total = sum(candidate.transfer_steps for candidate in self.candidates)
        total += finetune * sum(candidate.start == "scratch" for candidate in self.candidates)
        contenders = len(self.contenders())
        return total + (finetune + (contenders - 1) * self.milestones[-2:][0] if contenders else 0)

    def steps_done(self) -> int:
        return sum(candidate.trainee.step for candidate in self.candidates)

    def run(self, after_step: AfterStep, tick: Tick = lambda: None) -> None:
        """Train every candidate as far as it goes; `measure` then does the last measurement.

        Safe to call on a race that was loaded from a checkpoint. Calls `tick` before each image that it measures or
        fits a last layer to.
        """
        for candidate in self.candidates:
            self._train(candidate, candidate.transfer_steps, after_step, tick)
        for milestone in self.milestones:
            if milestone == self.milestones[-1]:
                self._stop_losers()
            for candidate in self.candidates:
                if not candidate.stopped:
                    self._train(candidate, candidate.transfer_steps + milestone, after_step, tick)
                    # A resumed candidate may be past this milestone, where it was measured before.
                    if candidate.finetune_steps_done == milestone != self.milestones[-1]:
                        candidate.measure(self.split, self.lpips, tick)

    def _stop_losers(self) -> None:
        """Of those that start from knowledge only the best so far goes on."""
        contenders = self.contenders()
        if len(self.milestones) > 1 and contenders:
            before = self.milestones[:-1]
            leader = max(contenders, key=lambda each: max(mean(each.measured[steps]).psnr for steps in before))
            for candidate in contenders:
                candidate.stopped = candidate is not leader

    def _train(self, candidate: Candidate, until: int, after_step: AfterStep, tick: Tick) -> None:
        trainee, lane = candidate.trainee, self.candidates.index(candidate)
        while trainee.step < until:
            if trainee.step < candidate.transfer_steps:
                loss = self._transfer(candidate, lane)
                phase = "transferring"
            else:
                step = trainee.step - candidate.transfer_steps
                if step == 0:
                    # Fine-tuning is a stage of its own with a fresh optimizer, also after a resume at this point.
                    if candidate.linear_probe:
                        fit_last_layer(candidate.network, self.split.train, self.seed, tick)
                    trainee.optimizer = adam(trainee.network, candidate.finetune.learning_rate)
                self.crew.begin(Order.FINETUNE, lane, step, trainee.network)
                pairs, schedule = self.split.train, candidate.finetune
                loss = finetune_step(trainee.network, trainee.optimizer, pairs, schedule, self.seed, step, self.crew)
                phase = "fine_tuning"
            trainee.step += 1
            after_step(phase, candidate.start, trainee.step, loss)

    def _transfer(self, candidate: Candidate, lane: int) -> Float[Tensor, ""]:
        """One step of Algorithm 2, or of Algorithm 3, which the leader of a crew computes alone.

        Its inner steps are sequences of small batches, one task after another: too little to share.
        """
        trainee, mix, transfer = candidate.trainee, candidate.mix, candidate.transfer
        assert mix is not None
        learning = (trainee.network, trainee.optimizer, self.clean_images, self.tasks, mix.gamma, transfer)
        if candidate.meta is not None:
            self.crew.reassure()
            return meta_step(*learning, candidate.meta, self.seed, trainee.step, mix.chances)
        self.crew.begin(Order.TRANSFER, lane, trainee.step, trainee.network)
        return transfer_step(*learning, self.seed, trainee.step, mix.chances, self.crew)

    def measure(self, tick: Tick = lambda: None) -> None:
        """Measure those who reached the end, their last layer fitted anew where that is wanted, and their average.

        Calls `tick` before each image.
        """
        for candidate in self.candidates:
            if candidate.stopped:
                continue
            if candidate.refit and candidate.finetune_steps_done not in candidate.measured:
                crops = crops_of_a_refit(len(self.split.train))
                fit_last_layer(candidate.network, self.split.train, self.seed, tick, crops)
            candidate.measure(self.split, self.lpips, tick)
        self.average = self._averaged()
        if self.average is not None:
            self.average.measure(self.split, self.lpips, tick)

    def _averaged(self) -> Candidate | None:
        """The mean of the last weights of those that began with the prior, where these are two or more."""
        alike = [candidate for candidate in self.candidates if candidate.from_prior]
        if len(alike) < 2:
            return None
        states = [candidate.network.state_dict() for candidate in alike]
        network = deepcopy(alike[0].network)
        network.load_state_dict(
            {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
        )
        learnt = next((candidate for candidate in alike if candidate.mix is not None), alike[0])
        steps = learnt.transfer_steps + max(candidate.finetune_steps_done for candidate in alike)
        trainee = Trainee(network, adam(network, learnt.finetune.learning_rate), steps)
        return replace(learnt, start="average", trainee=trainee, measured={}, best_weights={}, stopped=False)

    def entries(self) -> list[Candidate]:
        """All that was measured, the average of some as one more."""
        return self.candidates + ([self.average] if self.average is not None else [])

    def winner(self) -> Candidate:
        """The best of those who reached the end and may be chosen, with its best weights in its network.

        Of equals the earlier, so that an average has to be better than what it is made of.
        """
        eligible = [c for c in self.entries() if not c.stopped and c.start not in self.held_back]
        best = max(eligible, key=lambda candidate: mean(candidate.quality).psnr)
        best.network.load_state_dict(best.best_weights)
        return best

    def save(self, path: Path, beside: Mapping[str, Tensor] = MappingProxyType({}), **facts: Any) -> None:
        """Write everything that `load` needs to go on, with what whoever runs the race keeps beside it."""
        tensors = dict(beside)
        progress: dict[str, Any] = {}
        for candidate in self.candidates:
            progress[candidate.start] = {
                "step": candidate.trainee.step,
                "measured": {steps: [astuple(q) for q in each] for steps, each in candidate.measured.items()},
            }
            tensors |= {f"{candidate.start}/{name}": value for name, value in candidate.trainee.tensors().items()}
            tensors |= {f"{candidate.start}/best/{name}": value for name, value in candidate.best_weights.items()}
        checkpoint.save(path, tensors, facts | {"candidates": progress, "plan": self.plan})

    def resume(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take over the state of an interrupted race from its checkpoint. Raises ValueError for another's."""
        if set(facts["candidates"]) != {candidate.start for candidate in self.candidates}:
            raise ValueError(f"the checkpoint is of other candidates: {sorted(facts['candidates'])}")
        for candidate in self.candidates:
            progress = facts["candidates"][candidate.start]
            candidate.trainee.load(checkpoint.under(tensors, f"{candidate.start}/"), progress["step"])
            candidate.best_weights = checkpoint.under(tensors, f"{candidate.start}/best/")
            candidate.measured = {
                int(steps): [Quality(*numbers) for numbers in each] for steps, each in progress["measured"].items()
            }
