"""Schemathesis finds nothing: no 5xx, no undocumented status, no schema violation, nothing accepted that is invalid.

Short and with a fixed seed; `benchmarks/fuzz_api.py` goes on for as long as it is told to.
"""

from pathlib import Path

import pytest

from tests.chaos.fuzzing import ALL_PHASES, SITUATIONS, Situation, fuzz

# The coverage phase alone sends more than a thousand requests, so it is run where they reach furthest.
PHASES = dict.fromkeys(SITUATIONS, "examples,fuzzing") | {"every scope": ALL_PHASES}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_check_passes_on_every_call(situation: Situation, tmp_path: Path, valkey_url: str) -> None:
    outcome = fuzz(situation, tmp_path / "api", valkey_url, seed=1, phases=PHASES[situation], max_examples=2)
    assert outcome.passed, outcome.output
    assert outcome.document["operations"]["tested"] == outcome.document["operations"]["total"], outcome.output
