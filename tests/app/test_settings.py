"""Settings that cannot be used: what the operator is told."""

import pytest

from tests.app.test_cli import drtl


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"DRTL_MAX_PAIRS": "many"}, ["up"], "DRTL_MAX_PAIRS: Input should be a valid integer"),
        ({"DRTL_MAX_PAIRS": "many"}, ["doctor"], "error: DRTL_MAX_PAIRS: Input should be a valid integer"),
        ({}, ["up", "--data-dir", "/proc/nowhere"], "/proc/nowhere cannot be the folder of the data"),
    ],
)
def test_mistakes_in_the_settings_are_told_in_a_line(
    environment: dict[str, str], arguments: list[str], said: str
) -> None:
    done = drtl(*arguments, **environment)
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "many" not in done.stderr  # Values of settings can be secrets.
    assert len(done.stderr.splitlines()) == 1
