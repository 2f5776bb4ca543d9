"""The schema of the settings."""

from __future__ import annotations

import pytest

from stream.controls import (
    MAX_MESSAGE_BYTES,
    Controls,
    parse_changes,
    parse_json,
    parse_query,
)
from stream.errors import ControlRefused


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"strength": NaN}', "not JSON"),
        ('{"strength": -Infinity}', "not JSON"),
        ('{"strength": 1e999}', "strength must be from 0 to 1"),
        ("[" * 10000, "not JSON"),
        ("9" * 5000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ('"' + "x" * MAX_MESSAGE_BYTES + '"', "16384 bytes"),
        ("[]", "object"),
        ("null", "object"),
        ('{"strenght": 1}', "strenght"),
        ('{"strength": "1"}', "strength must be a number"),
        ('{"strength": true}', "strength must be a number"),
        ('{"strength": null}', "strength must be a number"),
        ('{"strength": 1.01}', "1.01"),
        ('{"negative_prompt": "blurry"}', "negative_prompt is not taken: a model of one step"),
        ('{"strength": -0.1}', "from 0 to 1"),
        ('{"stability": 2}', "stability"),
        ('{"transition_s": 10.5}', "from 0 to 10"),
        ('{"region": "face"}', "one of both, person, background (got 'face')"),
        ('{"region": true}', "region must be one of"),
        ('{"region": null}', "region must be one of"),
        ('{"seed": 1.0}', "whole number"),
        ('{"seed": false}', "whole number"),
        ('{"seed": 2147483648}', "2147483647"),
        ('{"seed": -1}', "from 0"),
        ('{"bypass": 1}', "true or false"),
        ('{"bypass": "true"}', "true or false"),
        ('{"prompt": 5}', "text"),
        ('{"prompt": "a\\nb"}', "one line"),
        ('{"prompt": "\\ud800"}', "one line"),
        ('{"prompt": "' + "x" * 1001 + '"}', "1000 characters"),
        ('{"strength": 0.5, "seed": "no"}', "seed"),
    ],
)
def test_bad_message_is_refused_in_one_sentence(text: str | bytes, word: str) -> None:
    """What fails the check is refused, and the sentence names it."""
    with pytest.raises(ControlRefused) as refused:
        parse_changes(parse_json(text))
    assert word in refused.value.detail
    assert len(refused.value.detail) < 200
    assert refused.value.detail.isprintable()


def test_changes_apply_all_or_none() -> None:
    """A checked change replaces what it names and leaves the rest."""
    before = Controls(prompt="ink-wash", seed=3)
    after = before.changed(parse_changes({"strength": 0, "bypass": True}))
    assert after == Controls(prompt="ink-wash", seed=3, strength=0.0, bypass=True)
    assert isinstance(after.strength, float)
    assert after.to_json().keys() == {
        "prompt",
        "strength",
        "seed",
        "stability",
        "transition_s",
        "bypass",
        "freeze",
        "region",
        "marks",
    }


def test_query_has_the_same_schema() -> None:
    """A query string sets what a message sets; a prompt may look like a number."""
    query = {"prompt": "1984", "strength": "0.25", "freeze": "1", "region": "person"}
    wanted = {"prompt": "1984", "strength": 0.25, "freeze": True, "region": "person"}
    assert parse_query(query) == wanted


@pytest.mark.parametrize(
    "query",
    [
        {"strength": "nan"},
        {"strength": ""},
        {"strength": "1_0"},
        {"seed": "0x10"},
        {"bypass": "yes"},
        {"freeze": "on"},
        {"speed": "1"},
    ],
)
def test_bad_query_is_refused(query: dict[str, str]) -> None:
    """What a message may not say, a query may not either."""
    with pytest.raises(ControlRefused):
        parse_query(query)
