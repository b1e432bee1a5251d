"""The whole method: pairs in; graph, measured model and verdict out."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from torch import Tensor

from ml.backbones import BACKBONES, SameSize
from ml.descriptor import describe
from ml.distortions import DISTORTIONS
from ml.evaluate import mean, quality_of
from ml.guidance import Guidance, task_shares
from ml.images import decode, to_uint8
from ml.job import Follower, run_job
from ml.lpips import alexnet_features, load_lpips
from ml.match import closeness, fingerprint, reference_in
from ml.model_file import unpack
from ml.options import PRESETS, Scheme, TrainingOptions
from ml.pairs import PairFile, decode_pairs, split
from ml.preview import Preview
from ml.prior import Prior, UnusablePrior, save_prior
from ml.relation import Relation
from ml.report import Outcome
from ml.transferability import fresh_expert
from ml.windows import windows_of

pytestmark = pytest.mark.usefixtures("tiny_jobs")
PairFiles = Callable[..., list[PairFile]]


class Recorder:
    """A follower that remembers everything, saves every step, and can stop the job after some steps."""

    def __init__(self, folder: Path | None = None, stop_after: int | None = None, *, looks: bool = False) -> None:
        self.folder = folder
        self.stop_after = stop_after
        self.said: list[tuple[str, float, dict[str, float | str | Tensor]]] = []
        self.graphs: list[dict[str, Any]] = []
        self.steps = 0
        self.looks = looks
        self.previews: list[Preview] = []

    def progress(self, phase: str, fraction: float, **facts: float | str | Tensor) -> None:
        self.said.append((phase, fraction, facts))

    def graph(self, graph: dict[str, Any]) -> None:
        self.graphs.append(graph)

    def checkpoint(self, write: Callable[[Path], None]) -> None:
        if self.folder is not None:
            write(self.folder / str(self.steps))
        self.steps += 1
        if self.steps == self.stop_after:
            raise InterruptedError

    def preview(self, look: Callable[[], Preview]) -> None:
        if self.looks:
            self.previews.append(look())


@pytest.fixture
def prior_path(tiny_prior: Prior, tmp_path: Path) -> Path:
    save_prior(tmp_path / "prior.safetensors", tiny_prior)
    return tmp_path / "prior.safetensors"


@pytest.fixture
def experts(prior_path: Path, tiny_prior: Prior) -> dict[str, SameSize]:
    """An untrained expert for each distortion, which the prior of the jobs then has."""
    made = {name: fresh_expert(place).eval() for place, name in enumerate(tiny_prior.prototypes.names)}
    save_prior(prior_path, replace(tiny_prior, experts=made))
    return made


@pytest.fixture
def run(prior_path: Path) -> Callable[..., Outcome]:
    def run(
        files: list[PairFile], follower: Follower | None = None, resume: Path | None = None, **options: Any
    ) -> Outcome:
        return run_job(files, TrainingOptions(**options), follower or Recorder(), prior_path=prior_path, resume=resume)

    return run


def without_times(outcome: Outcome) -> dict[str, Any]:
    return {name: value for name, value in outcome.metrics.items() if name != "seconds"}


def equal_weights(one: Outcome, other: Outcome) -> bool:
    first, second = load(one.weights), load(other.weights)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_job_interrupted_anywhere_and_resumed_gives_the_same_bits(
    run: Callable[..., Outcome], pair_files: PairFiles, tmp_path: Path
) -> None:
    files = pair_files(4, 50, 60)
    recorder = Recorder(tmp_path)
    whole = run(files, recorder)
    steps = [(phase, facts["candidate"], facts["step"]) for phase, _, facts in recorder.said if facts]
    assert recorder.steps == len(steps) == 6 + (3 + 4) + 6
    # The last step of the transfer, the first of fine-tuning, the rungs, and the end. test_race.py does every step.
    boundary = steps.index(("transferring", "guided-transfer", 3))
    for point in (1, boundary, boundary + 1, boundary + 3, boundary + 5, len(steps) - 1):
        resumed = run(files, resume=tmp_path / str(point))
        assert resumed.weights == whole.weights, steps[point]
        assert without_times(resumed) == without_times(whole)
        assert resumed.graph == whole.graph


@pytest.mark.parametrize("scheme", ["maml", "drtl-maml"])
def test_a_meta_learned_job_stops_at_any_step_and_resumes_to_the_same_bits(
    run: Callable[..., Outcome], pair_files: PairFiles, tmp_path: Path, scheme: str
) -> None:
    """Steps are counted as for any other scheme, and the fraction done never falls."""
    files, options = pair_files(4, 50, 60), {"scheme": scheme, "guidance": "sample", "temperature": 0.2}
    recorder = Recorder()
    whole = run(files, recorder, **options)
    assert recorder.steps == 6 + 3 + 6
    fractions = [fraction for _, fraction, _ in recorder.said]
    assert fractions == sorted(fractions)
    for step in (1, 2, 3, 4):
        stopped = Recorder(tmp_path, stop_after=step)
        with pytest.raises(InterruptedError):
            run(files, stopped, **options)
        assert stopped.steps == step
        assert run(files, resume=tmp_path / str(step - 1), **options).weights == whole.weights


def test_how_gamma_acts_is_written_into_the_graph_and_the_card(
    run: Callable[..., Outcome], pair_files: PairFiles, relation: Relation
) -> None:
    recorder = Recorder()
    outcome = run(pair_files(4), recorder, scheme="drtl-pretrain", temperature=0.1, top_k=2, finetune_steps=2)
    shares = task_shares(relation, Guidance(temperature=0.1, top_k=2)).tolist()
    assert sum(share > 0 for share in shares) == 2
    (graph,) = recorder.graphs
    chosen = {"by": "sample", "temperature": 0.1, "top_k": 2, "prefer": "likeness"}  # This prior has no experts.
    assert graph["graph"]["guidance"] == chosen
    assert all(node.get("gain_db") is None for node in graph["nodes"])
    assert [node["weight"] for node in graph["nodes"] if node["kind"] == "auxiliary"] == pytest.approx(shares)
    assert [link["weight"] for link in graph["links"] if link["target"] == "target"] == pytest.approx(shares)
    assert outcome.card["task_weights"] == pytest.approx(dict(zip(relation.prototypes.names, shares, strict=True)))
    assert (outcome.card["options"]["temperature"], outcome.card["options"]["top_k"]) == (0.1, 2)


def test_with_experts_the_job_prefers_what_helps_and_says_so(
    run: Callable[..., Outcome], pair_files: PairFiles, experts: dict[str, SameSize], relation: Relation
) -> None:
    recorder = Recorder()
    outcome = run(pair_files(4), recorder, scheme="drtl-pretrain", finetune_steps=2)
    (graph,) = recorder.graphs
    assert graph["graph"]["guidance"]["prefer"] == "transferability"
    nodes = {node["id"]: node for node in graph["nodes"] if node["kind"] == "auxiliary"}
    assert nodes.keys() == experts.keys()
    gains = {name: node["gain_db"] for name, node in nodes.items()}
    weights = {name: node["weight"] for name, node in nodes.items()}
    assert sorted(gains, key=gains.__getitem__) == sorted(weights, key=weights.__getitem__)
    assert all(node["gain_db_std"] >= 0 for node in nodes.values())
    best = max(gains, key=gains.__getitem__)
    assert (
        f"Learning to undo {DISTORTIONS[best].words} promises to help most ({gains[best]:+.1f} dB"
        in (graph["graph"]["sentence"])
    )
    assert outcome.card["task_weights"] == pytest.approx(weights)
    likeness = Recorder()
    run(pair_files(4), likeness, scheme="drtl-pretrain", finetune_steps=2, prefer="likeness")
    assert likeness.graphs[0]["graph"]["guidance"]["prefer"] == "likeness"
    shares = task_shares(relation, Guidance(prefer="likeness")).tolist()
    assert [node["weight"] for node in likeness.graphs[0]["nodes"][:-1]] == pytest.approx(shares)


def test_a_draft_fits_the_prior_and_asks_no_expert_since_it_learns_no_task(
    run: Callable[..., Outcome], pair_files: PairFiles, experts: dict[str, SameSize]
) -> None:
    assert experts
    recorder = Recorder()
    outcome = run(pair_files(4), recorder, preset="draft")
    assert recorder.steps == 2 * 24
    assert [each["name"] for each in outcome.metrics["candidates"]] == ["scratch", "prior"]
    (graph,) = recorder.graphs
    assert len(graph["nodes"]) == len(experts) + 1
    assert all(node.get("gain_db") is None for node in graph["nodes"])
    assert {node["weight"] for node in graph["nodes"] if node["kind"] == "auxiliary"} == {0}
    assert outcome.verdict in {"gain", "no_gain"}


@pytest.mark.parametrize(
    ("scheme", "learnt"), [("baseline", "none"), ("pretrain", "alike"), ("maml", "alike"), ("drtl-pretrain", "guided")]
)
def test_the_graph_weighs_tasks_as_the_job_learns_them(
    run: Callable[..., Outcome], pair_files: PairFiles, experts: dict[str, SameSize], scheme: str, learnt: str
) -> None:
    recorder = Recorder()
    outcome = run(pair_files(4), recorder, scheme=scheme, finetune_steps=1)
    ((facts, nodes),) = ((graph["graph"], graph["nodes"][:-1]) for graph in recorder.graphs)
    weights = {node["id"]: node["weight"] for node in nodes}
    assert weights.keys() == experts.keys()
    assert [node["selected"] for node in nodes] == [learnt != "none"] * len(nodes)
    assert sum(weights.values()) == pytest.approx(0 if learnt == "none" else 1)
    assert (len({round(weight, 6) for weight in weights.values()}) == 1) is (learnt != "guided")
    assert (facts["guidance"] is None) is (learnt != "guided")
    assert facts["sentence"].endswith("this job learns from none of them.") is (learnt == "none")
    if outcome.card["task_weights"] is not None:
        assert outcome.card["task_weights"] == pytest.approx(weights)


def test_a_job_with_experts_resumes_to_the_same_bits_and_looks_up_what_it_had_found(
    run: Callable[..., Outcome],
    pair_files: PairFiles,
    experts: dict[str, SameSize],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert experts
    files = pair_files(4, 130, 140)  # Enough for a fingerprint.
    whole = run(files, Recorder(), scheme="drtl-pretrain")
    with pytest.raises(InterruptedError):
        run(files, Recorder(tmp_path, stop_after=2), scheme="drtl-pretrain")
    for found in ("relate", "assessed", "fingerprint"):
        monkeypatch.delattr(f"ml.findings.{found}")
    resumed = run(files, resume=tmp_path / "1", scheme="drtl-pretrain")
    assert resumed.weights == whole.weights
    assert resumed.card["match"] == whole.card["match"] is not None
    assert resumed.graph == whole.graph
    assert all(node["gain_db"] is not None for node in resumed.graph["nodes"] if node["kind"] == "auxiliary")


def test_the_card_of_a_model_without_transfer_names_no_tasks(
    run: Callable[..., Outcome], pair_files: PairFiles
) -> None:
    assert run(pair_files(4), scheme="baseline", finetune_steps=2).card["task_weights"] is None
    untransferred = run(pair_files(4), scheme="drtl-maml", transfer_steps=0, finetune_steps=2)
    assert untransferred.card["task_weights"] is None


def test_equal_jobs_give_equal_model_files(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    """To the byte: the card holds no clock readings. Those are in the metrics alone."""
    one, other = run(pair_files(4, 50, 60)), run(pair_files(4, 50, 60))
    assert one.weights == other.weights
    assert "seconds" not in one.card["metrics"]
    assert one.metrics.keys() - one.card["metrics"].keys() == {"seconds"}
    assert one.metrics["seconds"].keys() == {"validating", "embedding", "training", "evaluating"}
    assert all(seconds >= 0 for seconds in one.metrics["seconds"].values())


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"finetune_steps": 7}, {"init": "scratch"}, {"pixels": 9}, {"prior": "another"}]
)
def test_a_checkpoint_of_another_plan_is_refused_before_the_first_step(
    run: Callable[..., Outcome],
    pair_files: PairFiles,
    prior_path: Path,
    tiny_prior: Prior,
    tmp_path: Path,
    change: dict[str, Any],
) -> None:
    change = dict(change)
    with pytest.raises(InterruptedError):
        run(pair_files(4), Recorder(tmp_path, stop_after=1), scheme="drtl-pretrain")
    files = pair_files(4, sigma=change.pop("pixels", 25))
    save_prior(prior_path, replace(tiny_prior, version=change.pop("prior", tiny_prior.version)))
    recorder = Recorder()
    with pytest.raises(ValueError, match="another plan"):
        run(files, recorder, resume=tmp_path / "0", scheme="drtl-pretrain", **change)
    assert recorder.steps == 0


def test_a_checkpoint_of_other_clean_images_is_refused_before_the_first_step(
    pair_files: PairFiles, prior_path: Path, photographs: dict[str, Tensor], tmp_path: Path
) -> None:
    """The transfer would go on with other samples. Where nothing is transferred, the folder may be what it likes."""
    files, clean, kept, untransferred = pair_files(4), *(tmp_path / name for name in ("clean", "kept", "baseline"))
    for folder in (clean, kept, untransferred):
        folder.mkdir()

    def run_with(scheme: Scheme, follower: Recorder, resume: Path | None = None) -> Outcome:
        options = TrainingOptions(scheme=scheme)
        return run_job(files, options, follower, prior_path=prior_path, clean_dir=clean, resume=resume)

    one, other = (to_picture(photographs[name][:, :90, :100]) for name in ("rocket", "coffee"))
    one.save(clean / "a.png")
    other.save(clean / "b.png")
    whole = run_with("drtl-pretrain", Recorder(kept))
    assert run_with("drtl-pretrain", Recorder(), kept / "1").weights == whole.weights
    with pytest.raises(InterruptedError):
        run_with("baseline", Recorder(untransferred, stop_after=1))

    def require_refusal() -> None:
        recorder = Recorder()
        with pytest.raises(ValueError, match="another plan"):
            run_with("drtl-pretrain", recorder, kept / "1")
        assert (recorder.steps, recorder.graphs) == (0, [])

    one.rotate(180).save(clean / "a.png")
    require_refusal()
    one.save(clean / "a.png")
    other.save(clean / "c.png")  # One more.
    require_refusal()
    (clean / "b.png").unlink()
    (clean / "a.png").rename(clean / "d.png")  # The same two, in another order.
    require_refusal()
    run_with("baseline", Recorder(), untransferred / "0")


def to_picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def test_a_missing_prior_is_the_operators_concern(pair_files: PairFiles, tmp_path: Path) -> None:
    """A ValueError would be told to the user as a mistake of theirs."""
    with pytest.raises(UnusablePrior) as refusal:
        run_job(pair_files(4), TrainingOptions(), Recorder(), prior_path=tmp_path / "none")
    assert not isinstance(refusal.value, ValueError)


def test_a_stopped_job_lets_the_followers_exception_through(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    with pytest.raises(InterruptedError):
        run(pair_files(4), Recorder(stop_after=2))


def test_another_seed_gives_another_model(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    files = pair_files(4, 50, 60)
    assert not equal_weights(run(files, scheme="baseline"), run(files, scheme="baseline", seed=1))


def test_progress_goes_through_the_phases_and_never_back(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    recorder = Recorder()
    run(pair_files(4), recorder)
    fractions = [fraction for _, fraction, _ in recorder.said]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert 0.95 < fractions[-1] < 1
    phases = list(dict.fromkeys(phase for phase, _, _ in recorder.said))
    assert phases == ["validating", "embedding", "transferring", "fine_tuning", "evaluating", "registering"]
    assert all(math.isfinite(float(facts["loss"])) for phase, _, facts in recorder.said if facts)


def test_the_graph_is_told_once_and_before_any_step(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    recorder = Recorder(stop_after=1)
    with pytest.raises(InterruptedError):
        run(pair_files(3), recorder)
    (graph,) = recorder.graphs
    json.dumps(graph, allow_nan=False)
    target = next(node for node in graph["nodes"] if node["id"] == "target")
    assert len(target["samples"]) == 3


@pytest.mark.parametrize("count", [3, 5])  # Strips of every pair are held out, or a whole pair.
def test_held_out_pixels_take_no_part_in_the_relation(
    run: Callable[..., Outcome], pair_files: PairFiles, count: int
) -> None:
    files = pair_files(count)
    parts = split(decode_pairs(files)[0], 0)
    held_out = {pair.name for pair in parts.held_out}
    first_column = {"halves": 72 * 11 // 16, "pairs": 0}[parts.protocol]

    def gamma(files: list[PairFile]) -> list[float]:
        recorder = Recorder(stop_after=1)
        with pytest.raises(InterruptedError):
            run(files, recorder)
        return [node["gamma"] for node in recorder.graphs[0]["nodes"] if node["kind"] == "auxiliary"]

    def spoiled(names: set[str], first_column: int) -> list[PairFile]:
        return [
            replace(file, distorted=inverted(file.distorted, first_column)) if file.name in names else file
            for file in files
        ]

    assert gamma(spoiled(held_out, first_column)) == gamma(files)
    assert gamma(spoiled({pair.name for pair in parts.train}, 0)) != gamma(files)


def inverted(file: bytes, first_column: int) -> bytes:
    array = np.array(Image.open(io.BytesIO(file)))
    array[:, first_column:] = 255 - array[:, first_column:]
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_model_file_is_the_model_that_was_measured(
    run: Callable[..., Outcome], pair_files: PairFiles, tmp_path: Path
) -> None:
    files = pair_files(5)
    outcome = run(files, scheme="baseline")
    (tmp_path / "model").write_bytes(outcome.weights)
    network, card = unpack(tmp_path / "model")
    assert card == outcome.card
    (held_out,) = [pair for pair in decode_pairs(files)[0] if pair.name in outcome.metrics["held_out"]]
    (quality,) = quality_of(network, [held_out])
    assert quality.psnr == pytest.approx(outcome.metrics["result"]["psnr"], abs=1e-6)
    assert outcome.metrics["result"] == outcome.metrics["baseline"]


def test_the_numbers_of_the_report_fit_together(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    outcome = run(pair_files(10))
    metrics = outcome.metrics
    json.dumps([metrics, outcome.card, outcome.graph], allow_nan=False)
    assert metrics["protocol"] == "pairs"
    assert [row["name"] for row in metrics["per_pair"]] == metrics["held_out"]
    assert len(metrics["held_out"]) == 2
    for side, column in (("input", "input_psnr"), ("baseline", "baseline_psnr"), ("result", "result_psnr")):
        mean = sum(row[column] for row in metrics["per_pair"]) / 2
        assert metrics[side]["psnr"] == pytest.approx(mean)
    assert metrics["gain_db"] == pytest.approx(metrics["result"]["psnr"] - metrics["input"]["psnr"])
    by_name = {candidate["name"]: candidate for candidate in metrics["candidates"]}
    assert metrics["result"]["psnr"] == max(c["psnr"] for c in by_name.values() if not c["stopped_early"])
    assert by_name[metrics["chosen"]]["psnr"] == metrics["result"]["psnr"]
    assert outcome.verdict == ("gain" if metrics["gain_db"] >= 0.02 else "no_gain")
    assert outcome.card["gamma"].keys() == {"bicubic", "noise", "mild"}
    assert outcome.card["parameters"] == sum(value.numel() for value in load(outcome.weights).values())


@pytest.mark.parametrize("scale", [1, 2])
def test_the_card_says_what_the_training_images_are_like_and_nothing_of_the_held_out_ones(
    run: Callable[..., Outcome], pair_files: PairFiles, scale: int
) -> None:
    """Enough to tell a foreign image from an own one, at the size at which both are sent in."""
    files = pair_files(4, 96, 80, scale=scale)
    outcome = run(files, scheme="baseline", finetune_steps=1)
    reference = reference_in(outcome.card)
    assert reference is not None
    own = [to_uint8(decode(file.distorted).pixels) for file in files if file.name not in outcome.metrics["held_out"]]
    assert reference == fingerprint(own)
    (file,) = [file for file in files if file.name in outcome.metrics["held_out"]]
    own_image, foreign_image = (describe(windows_of(decode(each).pixels)) for each in (file.distorted, file.clean))
    assert own_image is not None
    assert foreign_image is not None
    assert closeness(reference, own_image).distance < closeness(reference, foreign_image).distance


def test_pairs_too_small_to_describe_leave_the_card_without_a_reference(
    run: Callable[..., Outcome], pair_files: PairFiles
) -> None:
    outcome = run(pair_files(4, 50, 60), scheme="baseline", finetune_steps=1)
    assert outcome.card["match"] is None


def test_a_network_that_learns_its_target_is_a_gain(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    files = [PairFile(pair.name, pair.clean, shifted_by(pair.clean, -40)) for pair in pair_files(4, 64, 64, sigma=0)]
    outcome = run(files, scheme="baseline", finetune_steps=120)
    assert outcome.verdict == "gain"
    assert outcome.metrics["gain_db"] > 3
    assert "over the input" in outcome.explanation


def shifted_by(file: bytes, levels: int) -> bytes:
    array = np.asarray(Image.open(io.BytesIO(file))).astype(int)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(array + levels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("scheme", ["auto", "baseline", "drtl-pretrain", "drtl-maml"])
def test_pairs_without_a_distortion_are_no_gain_and_json_can_hold_the_report(
    run: Callable[..., Outcome], pair_files: PairFiles, scheme: str
) -> None:
    """Nothing beats perfect input, not even a network that leaves it alone."""
    outcome = run(pair_files(4, sigma=0), scheme=scheme)
    assert outcome.verdict == "no_gain"
    assert outcome.metrics["input"]["psnr"] == 100
    assert outcome.metrics["gain_db"] <= 0
    assert "leaving the images as they are" in outcome.explanation
    json.dumps([outcome.metrics, outcome.card, outcome.graph], allow_nan=False)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_pairs_of_every_scale_give_a_model_of_that_scale(
    run: Callable[..., Outcome], pair_files: PairFiles, scale: int
) -> None:
    outcome = run(pair_files(2, 49, 53, scale=scale), scheme="drtl-pretrain", finetune_steps=2, transfer_steps=1)
    assert outcome.card["scale"] == scale
    assert outcome.card["unshuffle"] == {1: 2, 2: 2, 3: 4}[scale]
    assert outcome.metrics["protocol"] == "halves"
    assert "held-out parts" in outcome.explanation


@pytest.mark.parametrize("backbone", sorted(BACKBONES.keys() - {"vdsr"}))
def test_every_backbone_goes_from_pairs_to_a_model_file_without_pre_trained_weights(
    run: Callable[..., Outcome], pair_files: PairFiles, tmp_path: Path, backbone: str
) -> None:
    """At its full size; from nothing, and after a transfer that begins from nothing."""
    files = pair_files(4, 48, 52)
    outcome = run(files, backbone=backbone, unshuffle=4, transfer_steps=1, finetune_steps=2)
    assert [candidate["name"] for candidate in outcome.metrics["candidates"]] == ["scratch", "guided-transfer"]
    (tmp_path / "model").write_bytes(outcome.weights)
    network, card = unpack(tmp_path / "model")
    assert (card["backbone"], card["unshuffle"]) == (backbone, 4)
    held_out = [pair for pair in decode_pairs(files)[0] if pair.name in outcome.metrics["held_out"]]
    assert mean(quality_of(network, held_out)).psnr == pytest.approx(outcome.metrics["result"]["psnr"], abs=1e-4)


def test_too_little_unshuffling_for_the_scale_is_refused(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    with pytest.raises(ValueError, match="unshuffle"):
        run(pair_files(4, 40, 40, scale=2), unshuffle=1)


@pytest.mark.parametrize("size", [(48, 48), (50, 61), (70, 130)])
def test_pairs_smaller_than_a_training_crop_are_used(
    run: Callable[..., Outcome], pair_files: PairFiles, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """With the real crop of 64 pixels and its margin, which the halves of these pairs do not have."""
    quick = PRESETS["quick"]
    transfer = replace(quick.transfer, crop=64, steps=2)
    finetune = replace(quick.finetune, crop=64, steps=2)
    monkeypatch.setitem(PRESETS, "quick", replace(quick, transfer=transfer, finetune=finetune))
    outcome = run(pair_files(3, *size))
    assert len(outcome.metrics["per_pair"]) == 3


def test_grey_pairs_work(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    assert run(pair_files(4, mode="L"), scheme="baseline", finetune_steps=2).metrics["input"]["psnr"] > 15


def test_bad_pairs_are_refused_before_anything_is_trained(run: Callable[..., Outcome], pair_files: PairFiles) -> None:
    files = pair_files(4)
    recorder = Recorder()
    with pytest.raises(ValueError, match="broken"):
        run([*files, PairFile("broken", files[0].clean, b"not an image")], recorder)
    assert recorder.steps == 0


def test_a_job_learns_from_those_that_it_selects_and_its_graph_ranks_all(
    run: Callable[..., Outcome], pair_files: PairFiles
) -> None:
    recorder = Recorder()
    outcome = run(pair_files(4, 50, 60), recorder, scheme="drtl-pretrain", select="top-k", top_k=2)
    (graph,) = recorder.graphs
    learnt_from = {task for task, weight in outcome.card["task_weights"].items() if weight > 0}
    assert learnt_from == set(graph["graph"]["ranking"][:2])
    assert set(outcome.card["gamma"]) == {"bicubic", "noise", "mild"}
    weights = {node["id"]: node["weight"] for node in graph["nodes"] if node["kind"] == "auxiliary"}
    assert weights[graph["graph"]["ranking"][2]] == 0
    assert sum(weights.values()) == pytest.approx(1)


def test_metrics_hold_luma_and_lpips_where_its_weights_are(
    run: Callable[..., Outcome], pair_files: PairFiles, prior_path: Path, tmp_path: Path
) -> None:
    files = pair_files(4, 50, 60)
    without = run(files, scheme="baseline").metrics
    assert without["result"]["lpips"] is None
    assert without["result"]["psnr_y"] > without["result"]["psnr"]
    assert 0 < without["input"]["ssim_y"] < 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = {f"features.{name}": value for name, value in alexnet_features().state_dict().items()}
    torch.save(state, tmp_path / "alexnet.pth")
    lpips = load_lpips(tmp_path / "alexnet.pth")
    outcome = run_job(files, TrainingOptions(scheme="baseline"), Recorder(), prior_path=prior_path, lpips=lpips)
    assert outcome.metrics["result"]["lpips"] > 0
    assert outcome.metrics["per_pair"][0]["input_lpips"] > 0
    assert {name: outcome.metrics["result"][name] for name in ("psnr", "ssim")} == {
        name: without["result"][name] for name in ("psnr", "ssim")
    }
