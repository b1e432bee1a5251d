"""A short storm on both ways of running the service: `make chaos` is the long one."""

import json
from pathlib import Path

import pytest

from benchmarks.chaos import small_disk, storm
from benchmarks.chaos.doubling_broker import instead_of_the_real_one
from benchmarks.chaos.installation import Mode

NO_WAY = small_disk.way_to_mount() is None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["embedded", "cluster"])
def test_jobs_and_images_come_through_a_storm_of_kills_with_every_message_doubled(mode: Mode, tmp_path: Path) -> None:
    plan = storm.Plan(mode, seed=1, seconds=8.0, jobs=4, cancelled=1, every_s=1.0, training_workers=2, variants=1)
    report = storm.run(plan, tmp_path, print, **instead_of_the_real_one(tmp_path))
    assert sum(report["faults_done"].values()) >= 6
    broken = [verdict for verdict in report["invariants"] if not verdict["held"]]
    assert not broken, json.dumps(broken, indent=2)


@pytest.mark.timeout(300)
@pytest.mark.skipif(NO_WAY, reason=small_disk.NO_DISK)
def test_a_full_disk_is_said_to_be_one_damages_nothing_and_is_got_over(tmp_path: Path) -> None:
    broken = [verdict for verdict in small_disk.tried("embedded", tmp_path) if not verdict["held"]]
    assert not broken, json.dumps(broken, indent=2)
