"""The feed's documents say what is so: every example is valid, every series named exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from fake_farm import FakeFarm

from luna_farm.feed.metrics import FeedFacts

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "feed.md").read_text("utf-8")
SCHEMA = json.loads((DOCS / "feed.schema.json").read_text("utf-8"))
BLOCKS = re.findall(r"```json( request)?\n(.*?)```", TEXT, re.S)


def series() -> set[str]:
    """Return every sample name that a farm which has seen all kinds of events exposes."""
    farm = FakeFarm()
    for _ in range(60):
        for event in farm.job():
            farm.metrics.observe(event)
    body = farm.metrics.render(farm.status(), FeedFacts(True, 0, 0))[0].decode()
    return set(re.findall(r"^(luna_farm_\w+)", body, re.M))


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("request_mark", "text"), BLOCKS)
def test_every_example_is_valid(request_mark: str, text: str) -> None:
    schema = {**SCHEMA, "oneOf": [{"$ref": "#/$defs/request"}]} if request_mark else SCHEMA
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def test_every_event_is_in_the_table() -> None:
    events = {
        rule["properties"]["event"]["const"]
        for rule in SCHEMA["$defs"].values()
        if "event" in rule.get("properties", {})
    }
    assert len(events) == 23
    assert {name for name in events if f"`{name}`" not in TEXT} == set()


def test_every_series_of_the_table_exists_and_none_is_missing() -> None:
    table = TEXT[TEXT.index("| series |") : TEXT.index("## Health")]
    named = {
        f"luna_farm_{name}"
        for row in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)", row.partition(" | ")[0])
    }
    real = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series()}
    assert named == real


def test_grafana_asks_for_series_that_exist() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"luna_farm_\w+", expression)}
    assert len(names) > 15
    assert names <= series()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
