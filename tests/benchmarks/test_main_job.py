"""The benchmark of the main job looks for its pairs before it starts anything."""

from pathlib import Path

import pytest

from benchmarks import main_job


def test_without_targets_nothing_is_started_and_the_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_job, "import_seconds", lambda: pytest.fail("a process was started"))
    monkeypatch.setattr(main_job, "embedded_service", lambda _: pytest.fail("a service was started"))
    (tmp_path / "camera").mkdir()
    with pytest.raises(SystemExit, match=f"no target in {tmp_path / 'none'}: .*--targets"):
        main_job.measure(targets=tmp_path / "none", output=tmp_path / "report.json")
    with pytest.raises(SystemExit, match=f"no target named scanner in {tmp_path}: .*--targets"):
        main_job.measure(targets=tmp_path, only=["scanner"], output=tmp_path / "report.json")


def test_targets_are_the_folders_that_are_asked_for_by_name(tmp_path: Path) -> None:
    for name in ("scanner", "camera"):
        (tmp_path / name).mkdir()
    (tmp_path / "about.txt").write_text("no target")
    assert main_job.targets_in(tmp_path, None) == [tmp_path / "camera", tmp_path / "scanner"]
    assert main_job.targets_in(tmp_path, ["scanner"]) == [tmp_path / "scanner"]
