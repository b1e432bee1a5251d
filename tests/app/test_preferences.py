"""The `Prefer` header as RFC 7240 defines it."""

import time

import pytest
from hypothesis import example, given
from hypothesis.strategies import lists, text

from app.api.preferences import Preferences, parsed, preferences


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        # The RFC's own examples, of sections 2 and 4.
        ('foo; some-parameter=""', {"foo": ""}),
        ("respond-async, wait=100", {"respond-async": "", "wait": "100"}),
        ("handling=lenient", {"handling": "lenient"}),
        ('Foo; Bar="quux", wait=10', {"foo": "", "wait": "10"}),
        ('foo=""', {"foo": ""}),
        # And what lies off its paths.
        ("wait=1, wait=2", {"wait": "1"}),
        ("RESPOND-ASYNC", {"respond-async": ""}),
        ('a="x, wait=3", wait = 5', {"a": "x, wait=3", "wait": "5"}),
        (r'a="say \"wait=3\", please"', {"a": 'say "wait=3", please'}),
        ("wait=", {"wait": ""}),
        (" , ,;, =5, wait 5, wait=5 6", {}),
        ('a="open, wait=3', {}),
    ],
)
def test_a_field_is_read_as_the_rfc_says(field: str, expected: dict[str, str]) -> None:
    assert parsed(field) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Preferences()),
        (["respond-async", "wait=7"], Preferences(respond_async=True, wait_s=7)),
        (["return=minimal"], Preferences()),
        (["respond-asynchronously"], Preferences()),
        (["wait=-1"], Preferences()),
        (["wait=1.5"], Preferences()),
        (["wait=٣"], Preferences()),
        (['wait="12"'], Preferences(wait_s=12)),
        (["wait=" + "9" * 10_000], Preferences(wait_s=999_999_999)),
    ],
)
def test_only_what_is_known_and_readable_counts(lines: list[str], expected: Preferences) -> None:
    assert preferences(lines) == expected


@given(lists(text()))
@example(['"\\' * 50])
def test_no_header_is_an_error(lines: list[str]) -> None:
    preferences(lines)


@pytest.mark.parametrize("hostile", ['\\"' * 50_000, "a" + " " * 100_000 + "b", '"' * 100_000, "=, " * 50_000])
def test_a_hostile_header_takes_no_time(hostile: str) -> None:
    start = time.process_time()
    preferences([hostile])
    assert time.process_time() - start < 0.5
