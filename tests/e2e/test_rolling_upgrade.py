"""Releases side by side: the code before the newest migration goes on with the new schema, and with the new code."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.core.database import open_database
from app.embedded import free_port
from migrations import revision_of, revisions
from tests.images import image_pairs
from tests.servers import ServiceUnderTest, create_postgres_database, ending, eventually, start

ROOT = Path(__file__).resolve().parents[2]
CELERY = ["-m", "celery", "--app", "worker.app", "--quiet", "worker", "--loglevel", "INFO"]
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
WORKERS = {
    "training": ["--queues", "training", "--pool", "prefork", "--concurrency", "1", "--max-tasks-per-child", "1"],
    "inference": ["--queues", "inference,housekeeping", "--pool", "threads", "--concurrency", "4"],
}


def git(*words: str) -> str:
    ended = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.stdout.strip() if ended.returncode == 0 else ""


def unpack_the_release_before(folder: Path) -> Path:
    """The code as it was before the newest migration came; skips where the history does not reach so far back."""
    newest = next((ROOT / "migrations/versions").glob(f"{revisions()[0]}_*.py"))
    # The merge counts, not what was merged: a branch may lack what others have brought meanwhile.
    came_with = git("log", "--first-parent", "-m", "--diff-filter=A", "--format=%H", "-1", "--", str(newest))
    before = git("rev-parse", "--verify", f"{came_with}^1") if came_with else git("rev-parse", "--verify", "HEAD")
    if not before:
        pytest.skip("there is no git history that reaches back before the newest migration")
    archive = folder / "before.zip"  # Not tar, which Python unpacks in one way before 3.11.4 and in another after it.
    subprocess.run(["git", "archive", "--output", archive, before], cwd=ROOT, check=True)
    shutil.unpack_archive(archive, folder / "before")
    return folder / "before"


@dataclass
class Release:
    """One release's programs, on the database, the broker and the blobs that both releases share."""

    tree: Path
    shared: dict[str, str]
    log: Path
    url: str = field(init=False)

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DRTL_")}
        return kept | self.shared | {"PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}

    def migrate(self) -> None:
        command = [sys.executable, "-m", "migrations"]
        subprocess.run(command, cwd=self.tree, env=self.environment(), check=True, timeout=60)

    def run(self, *words: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            return ending(
                start([sys.executable, *words], cwd=self.tree, env=self.environment(), stdout=log, stderr=log)
            )

    @contextmanager
    def api(self) -> Iterator[None]:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.run("-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)):
            yield

    @contextmanager
    def workers(self) -> Iterator[None]:
        with ExitStack() as running:
            for name, options in WORKERS.items():
                running.enter_context(self.run(*CELERY, *options, *QUIET, "--hostname", f"{name}@{self.tree.name}"))
            yield

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, timeout_s=120, what=f"the api of {self.tree.name}")


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Asks the api again and again while the block runs; fails where it does not answer as it should."""
    over, wrong = threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not over.is_set():
                for path in ("/v1/jobs", "/v1/models", "/readyz"):
                    answer = client.get(path)
                    if answer.status_code != 200:
                        wrong.append(answer.text)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert wrong == []


def train_and_restore(url: str, name: str) -> None:
    """The main job through this api, whoever works."""
    service = ServiceUnderTest()
    with httpx.Client(base_url=url, timeout=60) as service.http:
        job = service.wait_for_end(service.post_job(name, finetune_steps=4), timeout_s=120)
        assert job["state"] == "succeeded", job["error"]
        image = image_pairs(1)[0][2]
        path = f"/v1/models/{name}@1/super-resolve"
        answer = service.http.post(path, content=image, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200, answer.text
        assert service.http.get(f"/v1/models/{name}/versions/1/weights").status_code == 200


@pytest.mark.timeout(300)
def test_old_and_new_apis_and_workers_work_together_while_the_service_is_upgraded(
    postgres_url: str, valkey_url: str, tmp_path: Path
) -> None:
    database = create_postgres_database(postgres_url)
    shared = {
        "DRTL_DATABASE_URL": database,
        "DRTL_BROKER_URL": valkey_url.replace("/0", "/7"),
        "DRTL_BLOB_DIR": str(tmp_path / "blobs"),
        "DRTL_DATA_DIR": str(tmp_path / "data"),
        "DRTL_TRAINING_THREADS": "1",
        "DRTL_INFERENCE_THREADS": "1",
    }
    old = Release(unpack_the_release_before(tmp_path), shared, tmp_path / "old.log")
    new = Release(ROOT, shared, tmp_path / "new.log")
    old.migrate()
    with old.api():
        with old.workers():
            old.wait_until_ready()
            with answering(old.url):
                new.migrate()
            with new.api():
                new.wait_until_ready()
                train_and_restore(new.url, "old-workers")
        with new.workers():
            train_and_restore(old.url, "new-workers")
        assert {model["name"] for model in httpx.get(f"{old.url}/v1/models").json()["items"]} == {
            "old-workers",
            "new-workers",
        }
    engine = open_database(database)
    assert revision_of(engine) == revisions()[0]
    engine.dispose()
