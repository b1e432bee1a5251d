"""A worker's connections, where the database is slow to answer."""

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from app.core.database import sessions
from app.core.settings import Settings
from worker.service import DatabaseDown, Service


def test_a_pool_in_which_all_wait_counts_as_a_database_that_is_away(service_settings: Settings) -> None:
    """An image whose worker had to wait for a connection would fail for a reason that is not its own."""
    engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1)
    opened = Service.open(service_settings)
    busy = replace(opened, sessions=sessions(engine))
    holder = engine.connect()
    with pytest.raises(DatabaseDown) as refused:
        busy.write(lambda session: session.scalar(text("SELECT 1")))
    assert isinstance(refused.value, PoolTimeout)
    attempts = 0

    def free_at_last() -> None:
        nonlocal attempts
        attempts += 1
        holder.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.service.time.sleep", lambda _: free_at_last())
        assert busy.write(lambda session: session.scalar(text("SELECT 1")), patience_s=30.0) == 1
    assert attempts == 1
    engine.dispose()
    opened.close()
