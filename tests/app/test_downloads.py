"""`drtl models download`, and the client's download of a model."""

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import app as cli
from app.failures import CommandFailed
from drtl_client import Client
from drtl_client.errors import NotFound
from tests.app.test_models import Register, register

__all__ = ["register"]  # A fixture of another file.


def test_a_download_leaves_nothing_where_it_is_refused(
    client: httpx.Client, register: Register, tmp_path: Path
) -> None:
    register()
    with Client(str(client.base_url)) as service:
        service.models["scanner@1"].download(tmp_path / "w")
        with pytest.raises(NotFound):
            service.models["scanner@9"].download(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_bytes() == b"weights of scanner 1"


def test_a_model_is_laid_into_a_folder_under_its_name_and_replaces_nothing_unasked(
    client: httpx.Client, register: Register, tmp_path: Path
) -> None:
    register(versions=2)

    def download(*arguments: str) -> Result:
        command = ["models", "download", "scanner@1", "-o", str(tmp_path), "--url", str(client.base_url)]
        return CliRunner().invoke(cli, [*command, *arguments])

    file = tmp_path / "scanner-v1.safetensors"
    first = download()
    assert first.exit_code == 0, first.output
    assert first.stdout == f"scanner@1 → {file}\n"
    assert file.read_bytes() == b"weights of scanner 1"
    file.write_bytes(b"mine")
    refused = download()
    assert isinstance(refused.exception, CommandFailed)
    assert str(refused.exception) == f"{file} exists"
    assert file.read_bytes() == b"mine"
    assert download("--overwrite").stdout == first.stdout
    assert file.read_bytes() == b"weights of scanner 1"
    assert list(tmp_path.iterdir()) == [file]
    # A slash means a folder, also where it is not there yet.
    new = CliRunner().invoke(
        cli, ["models", "download", "scanner@1", "-o", f"{tmp_path}/new/", "--url", str(client.base_url)]
    )
    assert new.exit_code == 0, new.output
    assert (tmp_path / "new" / "scanner-v1.safetensors").read_bytes() == b"weights of scanner 1"
