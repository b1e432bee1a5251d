"""What `drtl doctor` sees of a machine, and how it ends."""

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from app import installation
from app.core.database import open_database
from app.core.settings import Settings
from migrations import alembic_config, migrate, revisions
from tests.app.test_cli import drtl


def test_threads_beyond_the_cores_are_a_problem(tmp_path: Path) -> None:
    assert installation.threads(Settings(data_dir=tmp_path, training_threads=1, inference_threads=1)).state == "ok"
    assert installation.threads(Settings(data_dir=tmp_path, training_threads=999)).state == "problem"


def test_more_training_workers_than_cores_are_worth_a_note(tmp_path: Path) -> None:
    found = installation.threads(Settings(data_dir=tmp_path, training_workers=999))
    assert found.state == "note"
    assert "999 × 1 for training" in found.message


def test_workers_of_one_kind_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.settings.CORES", 8)
    assert (Settings().training_threads, Settings().inference_threads) == (8, 4)
    several = Settings(training_workers=3, inference_workers=5)
    assert (several.training_threads, several.inference_threads) == (2, 1)
    assert Settings(training_workers=3, training_threads=7).training_threads == 7


def test_a_prior_that_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "prior").write_bytes(b"no prior")
    found = {each.check: each for each in installation.method(Settings(prior_path=tmp_path / "prior"))}
    assert (found["torch"].state, found["libvips"].state) == ("ok", "ok")
    assert found["prior"].state == "problem"
    assert str(tmp_path / "prior") in found["prior"].message


def test_a_disk_that_is_too_full_for_an_upload_is_a_problem(tmp_path: Path) -> None:
    states = {each.state for each in installation.folders(Settings(data_dir=tmp_path, max_upload_bytes=2**60))}
    assert states == {"problem"}


def test_a_data_folder_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = next(iter(installation.folders(Settings(data_dir=tmp_path / "file" / "data"))))
    assert (found.check, found.state) == ("writable", "problem")


def test_a_data_folder_in_which_nothing_lies_need_not_be_writable(tmp_path: Path) -> None:
    """As in the containers, which have no home, and everything elsewhere."""
    (tmp_path / "file").write_bytes(b"")
    elsewhere: dict[str, Any] = {
        "data_dir": tmp_path / "file" / "data",
        "database_url": "postgresql+psycopg://drtl@127.0.0.1:9/drtl",
        "broker_url": "redis://127.0.0.1:9/0",
        "blob_dir": tmp_path / "blobs",
    }

    def unwritable(**settings: Any) -> bool:
        found = installation.folders(Settings(**elsewhere | settings))
        return any(each.check == "writable" and "data folder" in each.message for each in found)

    assert not unwritable()
    assert not unwritable(blob_dir=None, blob_url="s3://bucket")
    assert unwritable(database_url="")
    assert unwritable(blob_dir=None)
    del elsewhere["broker_url"]
    assert unwritable()


def test_a_data_folder_in_which_something_lies_is_looked_at(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url="postgresql+psycopg://drtl@127.0.0.1:9/drtl",
        broker_url="redis://127.0.0.1:9/0",
        blob_url="s3://bucket",
    )
    assert not any("data folder" in each.message for each in installation.folders(settings))
    settings.data_dir.mkdir()
    (settings.data_dir / "webhook.key").write_text("key")
    assert any("data folder" in each.message for each in installation.folders(settings))


def test_a_configured_broker_that_is_away_is_a_problem_and_one_without_a_reconciler_too(
    tmp_path: Path, valkey_url: str
) -> None:
    away = installation.broker(Settings(data_dir=tmp_path, broker_url="redis://127.0.0.1:9/0"))
    assert (away.check, away.state) == ("broker", "problem")
    found = installation.broker(Settings(data_dir=tmp_path, broker_url=valkey_url))
    assert found.check in {"broker", "reconciler"}
    assert (found.state == "problem") == (found.check == "reconciler")


def test_a_port_that_is_taken_is_a_note(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(data_dir=tmp_path, port=taken.getsockname()[1])
        assert installation.address(settings).state == "note"


def test_only_untouched_folders_of_workers_are_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, busy, foreign = (tmp_path / name for name in ("drtl-job-old", "drtl-job-busy", "other-old"))
    for folder in (old, busy, foreign):
        folder.mkdir()
        (folder / "input").write_bytes(b"x")
    for path in (old / "input", old, foreign / "input", foreign, busy):
        os.utime(path, (0, 0))
    found = {each.check: each for each in installation.leftovers(Settings(data_dir=tmp_path / "data"))}["scratch"]
    assert found.items == (str(old),)
    assert found.mend is not None
    found.mend()
    assert not old.exists()
    assert (busy / "input").exists()
    assert foreign.exists()


def test_an_announcement_is_stale_only_once_its_process_is_gone(tmp_path: Path) -> None:
    announcement = tmp_path / "service.json"
    announcement.write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid()}))
    settings = Settings(data_dir=tmp_path)
    assert next(iter(installation.leftovers(settings))).state == "ok"
    assert installation.address(settings).state == "problem"
    announcement.write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": 2**22 + 1}))
    stale = next(iter(installation.leftovers(settings)))
    assert stale.state == "note"
    assert stale.mend is not None
    stale.mend()
    assert not announcement.exists()


def test_a_folder_without_a_service_is_healthy_and_stays_as_it_is(tmp_path: Path) -> None:
    ended = drtl("doctor", "--json", "--data-dir", str(tmp_path / "none"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    document = json.loads(ended.stdout)
    assert document["healthy"] is True
    assert {check["check"] for check in document["checks"]} >= {"python", "torch", "libvips", "prior", "broker", "disk"}
    assert not (tmp_path / "none").exists()


def test_an_old_schema_with_a_wrong_alias_is_told_then_mended_and_then_healthy(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'drtl.sqlite3'}"
    migrate(url)
    engine = open_database(url)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), revisions()[1])
        connection.execute(text("INSERT INTO model_aliases (name, alias, version) VALUES ('m', 'production', 3)"))
    engine.dispose()

    told = drtl("doctor", "--data-dir", str(tmp_path))
    assert told.returncode == 1, told.stdout + told.stderr
    assert f"this release needs {revisions()[0]}" in told.stdout
    assert "drtl doctor --repair" in told.stdout

    repaired = drtl("doctor", "--repair", "--json", "--data-dir", str(tmp_path))
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    checks = {check["check"]: check for check in json.loads(repaired.stdout)["checks"]}
    assert "migrated" in checks["schema"]["repaired"]
    assert checks["aliases"]["repaired"] == "1 alias removed"
    assert drtl("doctor", "--data-dir", str(tmp_path)).returncode == 0
