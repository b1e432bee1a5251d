"""Rows as a database of any revision has them: every table, every state, written by the tables of that revision."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, Column, Connection, DateTime, Float, Integer, MetaData, Numeric, String, Table, select
from sqlalchemy.types import JSON

from app.core.tables import new_id

Row = dict[str, Any]
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")


def blob(text: str) -> str:
    return text.ljust(64, "0")


def ended(state: str) -> Row:
    """What goes with a state."""
    rows: dict[str, Row] = {
        "queued": {},
        "running": {"lease_token": "t1", "lease_until": 1.0, "started_at": LONG_AGO},
        "cancelling": {"lease_token": "t2", "lease_until": 2e9, "cancel_requested": 1.0, "started_at": LONG_AGO},
        "succeeded": {"started_at": LONG_AGO, "finished_at": LONG_AGO},
        "failed": {"finished_at": LONG_AGO, "error_code": "internal", "error_message": "Something failed."},
        "cancelled": {"finished_at": LONG_AGO, "cancel_requested": 1.0},
    }
    return rows[state]


def realistic(*, cancellable_operations: bool = True) -> dict[str, list[Row]]:
    """Rows of every table by the names that columns have ever had; the first key column is worded for its state."""
    jobs = [
        {
            "id": f"job_{state}",
            "name": "scanner" if state == "succeeded" else f"model-{state}",
            "dataset_id": "ds_used",
            "options": {"preset": "quick", "seed": 7},
            "state": state,
            "progress": 1.0 if state == "succeeded" else 0.25,
            "attempt": 0 if state == "queued" else 1,
            "created_at": LONG_AGO,
            "metrics": {"psnr_db": 31.5} if state == "succeeded" else None,
            "verdict": "gain" if state == "succeeded" else None,
            "model_version": 1 if state == "succeeded" else None,
            "checkpoint_blob": blob("c1") if state == "running" else None,
            "preview_blob": blob("c2") if state == "running" else None,
            **ended(state),
        }
        for state in STATES
    ]
    operations = [
        {
            "id": f"op_{state}",
            "model_name": "scanner",
            "model_version": 1,
            "input_blob": blob("d1"),
            "output_blob": blob("d2") if state == "succeeded" else None,
            "options": {"precision": "fp32"},
            "state": state,
            "attempt": 1,
            "created_at": LONG_AGO,
            "result": {"width": 5, "height": 7} if state == "succeeded" else None,
            "batch_id": "batch_1",
            "position": position,
            "file_name": f"{state}.png",
            "pixels": 35,
            "turn": float(position),
            "progress": 1.0 if state == "succeeded" else 0.0,
            **ended(state),
        }
        for position, state in enumerate(STATES)
        if cancellable_operations or not state.startswith("cancel")
    ]
    datasets = [{"id": key, "created_at": LONG_AGO, "scale": 1} for key in ("ds_used", "ds_unused")]
    return {
        "datasets": datasets,
        "pairs": [
            {
                "dataset_id": dataset["id"],
                "position": position,
                "name": f"paar {position} – äöü",
                "clean_blob": blob("a1"),
                "distorted_blob": blob("a2"),
                "report": {"psnr_db": 27.5, "shift": [0.5, -1]},
            }
            for dataset in datasets
            for position in range(2)
        ],
        "jobs": jobs,
        "job_events": [
            {"job_id": job["id"], "created_at": LONG_AGO, "kind": kind, "payload": {"step": 3}}
            for job in jobs
            for kind in ("started", "progress")
        ],
        "model_versions": [
            {
                "name": "scanner",
                "version": 1,
                "job_id": "job_succeeded",
                "created_at": LONG_AGO,
                "weights_blob": blob("b1"),
                "onnx_blob": blob("b2"),
                "card": {"gamma": {"noise": 0.97}},
            }
        ],
        "model_aliases": [{"name": "scanner", "alias": "production", "version": 1}],
        "batches": [
            {
                "id": "batch_1",
                "created_at": LONG_AGO,
                "model": "scanner@1",
                "options": {"format": "png"},
                "cancel_requested": False,
            }
        ],
        "operations": operations,
        "idempotency_keys": [
            {
                "key": "k",
                "created_at": LONG_AGO,
                "fingerprint": "f",
                "job_id": "job_succeeded",
                "made_id": "job_succeeded",
            }
        ],
        "api_keys": [
            {
                "id": "0a1b2c3d4e5f",
                "name": "lab",
                "owner": "lab",
                "secret_sha256": "0" * 64,
                "scopes": ["read"],
                "limits": {},
                "created_at": LONG_AGO,
            }
        ],
    }


def tables_of(connection: Connection) -> MetaData:
    """The tables that the database has now."""
    metadata = MetaData()
    metadata.reflect(connection)
    metadata.remove(metadata.tables["alembic_version"])
    return metadata


def insert_rows(connection: Connection, tables: MetaData) -> None:
    """A realistic row or more in every table, with those columns that the revision has."""
    known = realistic(cancellable_operations="cancel_requested" in tables.tables["operations"].columns)
    for table in tables.sorted_tables:
        for row in known.get(table.name, [{}]):
            insert(connection, table, row)


def insert(connection: Connection, table: Table, row: Row) -> None:
    """One row; what the table needs, has no default for and `row` does not say is made up."""
    values = {name: value for name, value in row.items() if name in table.columns}
    for column in table.columns:
        if column.name not in values and is_needed(column):
            values[column.name] = made_up(connection, column)
    connection.execute(table.insert().values(values))


def is_needed(column: Column[Any]) -> bool:
    key = column.table.primary_key.columns
    counts = bool(column.primary_key) and len(key) == 1 and isinstance(column.type, Integer)
    return not column.nullable and column.server_default is None and not counts


def made_up(connection: Connection, column: Column[Any]) -> Any:
    """A value of the column's type: for a foreign key that of a row that is there."""
    for key in column.foreign_keys:
        return connection.scalar(select(key.column).limit(1))
    kinds: list[tuple[type[Any] | tuple[type[Any], ...], Any]] = [
        (Boolean, False),
        (DateTime, LONG_AGO),
        ((Integer, Float, Numeric), 1),
        (JSON, {}),
        (String, new_id("x")[: getattr(column.type, "length", None) or 40]),
    ]
    return next(value for kind, value in kinds if isinstance(column.type, kind))


def rows_of(connection: Connection, tables: MetaData, names: Iterable[str] | None = None) -> dict[str, list[Row]]:
    """Every row of these tables, with the columns that they are known to have, in the order of their keys."""
    return {name: list(_rows(connection, tables.tables[name])) for name in names or tables.tables}


def _rows(connection: Connection, table: Table) -> Iterator[Row]:
    for row in connection.execute(select(table).order_by(*table.primary_key)):
        yield dict(row._mapping)
