"""Settings that cannot be used: what the operator is told."""

import pytest

from app.core.settings import BadSettings, read_settings
from tests.app.test_cli import drtl


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"DRTL_MAX_PAIRS": "many"}, ["up"], "error: DRTL_MAX_PAIRS: a whole number is needed"),
        ({"DRTL_MAX_PAIRS": "many"}, ["doctor"], "error: DRTL_MAX_PAIRS: a whole number is needed"),
        ({}, ["up", "--data-dir", "/proc/nowhere"], "error: /proc/nowhere cannot be the folder of the data"),
    ],
)
def test_mistakes_in_the_settings_are_told_in_a_line(
    environment: dict[str, str], arguments: list[str], said: str
) -> None:
    done = drtl(*arguments, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr
    assert "many" not in done.stderr  # Values of settings can be secrets.
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LEASE_S", "soon", "a number is needed"),
        ("LEASE_S", "nan", "a number is needed"),
        ("WAIT_S", "inf", "a number is needed"),
        ("WEBHOOK_HTTP", "perhaps", "true or false is needed"),
        ("PORT", "70000", "it must be at most 65535"),
        ("PORT", "-1", "it must be at least 0"),
        ("EXAMINATION_S", "0", "it must be more than 0"),
        ("LOG_FORMAT", "xml", "it must be 'text' or 'json'"),
        ("BLOB_URL", "http://bucket", "s3://bucket/prefix is needed"),
        ("WEBHOOK_CA_FILE", "/proc/nowhere", "there is no such file"),
        ("WEBHOOK_KEY", "short", "give at least 32 random characters"),
        ("WEBHOOK_NETWORKS", "all", "'all' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_what_is_wrong_with_a_setting_is_told_in_plain_words(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRTL_{variable}", value)
    with pytest.raises(BadSettings) as refused:
        read_settings()
    assert str(refused.value) == f"DRTL_{variable}: {said}"


def test_a_setting_that_is_given_without_a_value_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder's name would mean whichever folder the service was started in."""
    given = ("DRTL_DATA_DIR", "DRTL_BLOB_DIR", "DRTL_DATABASE_URL", "DRTL_PORT")
    for variable in given:
        monkeypatch.delenv(variable, raising=False)
    without = read_settings()
    for variable in given:
        monkeypatch.setenv(variable, "")
    assert read_settings() == without
