"""Candidates for one target, trained side by side and measured on the held-out pairs; the race can stop and resume.

Every candidate is some start followed by the same fine-tuning. Those that start from knowledge run to a third of the
fine-tuning steps, where all but the best stop. Fine-tuning from nothing runs to the end: it is the baseline that the
others are compared with and, on a target far from all known distortions, the likely winner.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from ml import checkpoint
from ml.backbones import SameSize
from ml.checkpoint import Trainee, adam
from ml.evaluate import Quality, mean, quality_of
from ml.finetune import FinetuneSchedule, finetune_step
from ml.pairs import Split
from ml.transfer import TransferSchedule, transfer_step

Start = Literal["scratch", "prior", "uniform-transfer", "guided-transfer"]
RUNG_SHARE: Final = 1 / 3

# After every step: (phase, candidate, step done by it, loss)
AfterStep = Callable[[str, str, int, float], None]


@dataclass
class Candidate:
    """One way to reach a model for the target.

    `trainee.step` counts auxiliary steps first (where it transfers), then fine-tuning steps.
    """

    start: Start
    trainee: Trainee
    gamma: Float[Tensor, "k"] | None  # Task weights of the transfer, None without one.
    transfer: TransferSchedule
    finetune: FinetuneSchedule
    rung: Quality | None = None
    final: list[Quality] = field(default_factory=list)
    stopped: bool = False

    @property
    def network(self) -> SameSize:
        assert isinstance(self.trainee.network, SameSize)
        return self.trainee.network

    @property
    def transfer_steps(self) -> int:
        return self.transfer.steps if self.gamma is not None else 0

    @property
    def finetune_steps_done(self) -> int:
        return max(0, self.trainee.step - self.transfer_steps)


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

    @property
    def rung_steps(self) -> int:
        """Fine-tuning steps after which contenders that trail stop; none stop where only one contends."""
        return max(1, round(RUNG_SHARE * self.candidates[0].finetune.steps))

    def contenders(self) -> list[Candidate]:
        """Candidates that start from knowledge, of which one runs to the end."""
        return [candidate for candidate in self.candidates if candidate.start != "scratch"]

    def planned_steps(self) -> int:
        """All steps of the race, whoever wins."""
        finetune = self.candidates[0].finetune.steps
        total = sum(candidate.transfer_steps for candidate in self.candidates)
        total += finetune * sum(candidate.start == "scratch" for candidate in self.candidates)
        contenders = len(self.contenders())
        return total + (finetune + (contenders - 1) * self.rung_steps if contenders else 0)

    def steps_done(self) -> int:
        return sum(candidate.trainee.step for candidate in self.candidates)

    def run(self, after_step: AfterStep) -> None:
        """Train every candidate as far as it goes. Safe to call on a race that was loaded from a checkpoint."""
        for candidate in self.candidates:
            self._train(candidate, candidate.transfer_steps, after_step)
        contenders = self.contenders()
        if len(contenders) > 1:
            for candidate in contenders:
                self._train(candidate, candidate.transfer_steps + self.rung_steps, after_step)
                if candidate.rung is None:
                    candidate.rung = mean(quality_of(candidate.network, self.split.held_out))
            leader = max(contenders, key=lambda candidate: _psnr(candidate.rung))
            for candidate in contenders:
                candidate.stopped = candidate is not leader
        for candidate in self.candidates:
            if not candidate.stopped:
                self._train(candidate, candidate.transfer_steps + candidate.finetune.steps, after_step)

    def _train(self, candidate: Candidate, until: int, after_step: AfterStep) -> None:
        trainee = candidate.trainee
        while trainee.step < until:
            if trainee.step < candidate.transfer_steps:
                assert candidate.gamma is not None
                loss = transfer_step(
                    trainee.network,
                    trainee.optimizer,
                    self.clean_images,
                    self.tasks,
                    candidate.gamma,
                    candidate.transfer,
                    self.seed,
                    trainee.step,
                )
                phase = "transferring"
            else:
                step = trainee.step - candidate.transfer_steps
                if step == 0:
                    # Fine-tuning is a stage of its own with a fresh optimizer, also after a resume at this point.
                    trainee.optimizer = adam(trainee.network, candidate.finetune.learning_rate)
                loss = finetune_step(
                    trainee.network, trainee.optimizer, self.split.train, candidate.finetune, self.seed, step
                )
                phase = "fine_tuning"
            trainee.step += 1
            after_step(phase, candidate.start, trainee.step, loss)

    def measure(self) -> None:
        """Evaluate on the held-out pairs everyone who reached the end."""
        for candidate in self.candidates:
            if not candidate.stopped and not candidate.final:
                candidate.final = quality_of(candidate.network, self.split.held_out)

    def winner(self) -> Candidate:
        """The best of those who reached the end and may be chosen."""
        eligible = [c for c in self.candidates if c.final and c.start not in self.held_back]
        return max(eligible, key=lambda candidate: mean(candidate.final).psnr)

    def save(self, path: Path) -> None:
        """Write everything that `load` needs to go on."""
        tensors: dict[str, Tensor] = {}
        progress: dict[str, Any] = {}
        for candidate in self.candidates:
            progress[candidate.start] = {
                "step": candidate.trainee.step,
                "rung": [candidate.rung.psnr, candidate.rung.ssim] if candidate.rung else None,
            }
            tensors |= {f"{candidate.start}/{name}": value for name, value in candidate.trainee.tensors().items()}
        checkpoint.save(path, tensors, {"candidates": progress, "plan": self.plan})

    def load(self, path: Path) -> None:
        """Take over the state of an interrupted race of the same plan. Raises ValueError for another's."""
        tensors, facts = checkpoint.load(path)
        if set(facts["candidates"]) != {candidate.start for candidate in self.candidates}:
            raise ValueError(f"path: {path} is a checkpoint of other candidates: {sorted(facts['candidates'])}")
        if facts.get("plan") != self.plan:
            raise ValueError(f"path: {path} is a checkpoint of another plan")
        for candidate in self.candidates:
            progress = facts["candidates"][candidate.start]
            candidate.trainee.load(checkpoint.under(tensors, f"{candidate.start}/"), progress["step"])
            candidate.rung = Quality(*progress["rung"]) if progress["rung"] else None


def _psnr(quality: Quality | None) -> float:
    assert quality is not None
    return quality.psnr
