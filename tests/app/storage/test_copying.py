"""`drtl blobs copy` between both storages."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from app.cli import app as cli
from app.commands.blobs import copy_missing
from app.core.folder_storage import FolderStorage
from app.core.object_storage import PART_BYTES
from app.core.storage import StoredFile
from tests.app.storage.places import Place


def test_what_was_copied_is_the_same_and_is_not_copied_twice(folder: Place, bucket: Place, tmp_path: Path) -> None:
    keys = {folder.put(content) for content in (b"one", b"two", os.urandom(PART_BYTES + 1))}
    run = CliRunner()
    there = run.invoke(cli, ["blobs", "copy", str(folder.files), bucket.url, "--json"], catch_exceptions=False)
    assert json.loads(there.stdout) == {"copied": 3, "damaged": []}
    assert bucket.kept() == keys
    more = bucket.put(b"more")
    elsewhere = tmp_path / "elsewhere"
    back = run.invoke(cli, ["blobs", "copy", bucket.url, str(elsewhere), "--json"], catch_exceptions=False)
    again = run.invoke(cli, ["blobs", "copy", bucket.url, str(elsewhere), "--json"], catch_exceptions=False)
    assert [json.loads(said.stdout)["copied"] for said in (back, again)] == [4, 0]
    copied = Place(FolderStorage(elsewhere), elsewhere, "")
    assert copied.kept() == keys | {more}
    assert all(hashlib.sha256(copied.read(key)).hexdigest() == key for key in keys)


def test_a_damaged_blob_is_named_and_not_copied(folder: Place, bucket: Place) -> None:
    damaged, good = folder.put(b"will be damaged"), folder.put(b"good")
    (folder.files / damaged[:2] / damaged).write_bytes(b"damaged")
    said = CliRunner().invoke(cli, ["blobs", "copy", str(folder.files), bucket.url])
    assert said.exit_code == 1
    assert damaged in str(said.exception)
    assert bucket.kept() == {good}


def test_a_blob_thrown_away_after_it_was_listed_is_left_out(tmp_path: Path) -> None:
    class Busy(FolderStorage):
        def inventory(self) -> Iterator[StoredFile]:
            for file in super().inventory():
                if file.key == outdated:
                    self.delete(outdated)
                yield file

    source, target = Busy(tmp_path / "source"), FolderStorage(tmp_path / "target")
    outdated, kept = (source.put(io.BytesIO(content)) for content in (b"a checkpoint", b"weights"))
    assert copy_missing(source, target) == (1, [])
    assert {file.key for file in target.inventory()} == {kept}
