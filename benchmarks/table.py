"""Prints a file of benchmarks/results/ as the tables of the documentation; a test keeps its pages equal to them."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.chaos_table import chaos_table
from benchmarks.doctor_table import doctor_table
from benchmarks.load_table import hostile_table, load_table
from benchmarks.main_job_table import main_job_table
from benchmarks.match_table import match_table, trust_table
from benchmarks.method_table import (
    auto_race_table,
    clean_sources_table,
    far_target_table,
    gradient_limit_table,
    guidance_table,
    maml_collapse_table,
    prior_start_table,
    rates_table,
    small_network_table,
)
from benchmarks.paper.document import page
from benchmarks.relation_table import leave_one_out_table, read_outs_table, unrelated_table
from benchmarks.restoring_table import restoring_table
from benchmarks.storage_table import storage_table
from benchmarks.training_speed_table import training_speed_table
from benchmarks.unit_costs_table import unit_costs_table

RECORDED = Path(__file__).with_name("results") / "main_job.json"
TABLES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "auto_race": auto_race_table,
    "chaos": chaos_table,
    "clean_sources": clean_sources_table,
    "far_target": far_target_table,
    "gradient_limit": gradient_limit_table,
    "guidance": guidance_table,
    "hostile_clients": hostile_table,
    "leave-one-out": leave_one_out_table,
    "load": load_table,
    "maml_collapse": maml_collapse_table,
    "match": match_table,
    "paper": partial(page, figures=False),
    "prior_start": prior_start_table,
    "rates": rates_table,
    "read_outs": read_outs_table,
    "small_network": small_network_table,
    "storage": storage_table,
    "training_speed": training_speed_table,
    "trust": trust_table,
    "unit_costs": unit_costs_table,
    "unrelated": unrelated_table,
}


def table(report: dict[str, Any]) -> str:
    """The report as Markdown. Those of the first benchmarks do not say which they are of."""
    if of := TABLES.get(report.get("benchmark", "")):
        return of(report)
    if "throughput" in report or "large" in report:
        return restoring_table(report)
    return doctor_table(report) if "parts" in report else main_job_table(report)


if __name__ == "__main__":
    print(table(json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDED).read_text())))
