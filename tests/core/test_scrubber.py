"""Secrets go from the documents of a job, settings stay."""

from __future__ import annotations

import base64
import copy
import json
import random

import pytest
from credentials import ALNUM, FIELDS, INNOCENT, INNOCENT_FIELDS, credentials

from luna_farm.core.scrubber import PLACES, Scrubber
from luna_farm.core.secrets import MASK

MADE = credentials(random.Random(2025))
OPAQUE = "".join(random.Random(7).choices(ALNUM, k=32))


def clean(*documents: object) -> list[object]:
    named = {f"d{at}": document for at, document in enumerate(documents)}
    return list(Scrubber().all(named, json.dumps(documents)).values())


@pytest.mark.parametrize("field", FIELDS)
def test_what_stands_under_the_name_of_a_secret_goes_everywhere(field):
    prompt = {"1": {"class_type": "A", "inputs": {field: OPAQUE}}, "2": {"inputs": {"text": f"see {OPAQUE}"}}}
    workflow = {"nodes": [{"type": "A", "widgets_values": [OPAQUE, 5]}]}
    assert OPAQUE not in json.dumps(clean(prompt, workflow))


@pytest.mark.parametrize(("kind", "text", "secret"), MADE, ids=[kind for kind, _, _ in MADE])
def test_a_credential_goes_as_a_value_in_a_list_and_as_a_key(kind, text, secret):
    assert secret not in json.dumps(clean({"1": {"inputs": {"text": text, "list": [text]}}}))
    assert secret not in json.dumps(clean({text: 1}))


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_texts_stay(text):
    document = {"1": {"inputs": {"text": text, text: [text]}}}
    assert clean(document) == [document]


@pytest.mark.parametrize(("field", "value"), INNOCENT_FIELDS.items())
def test_innocent_fields_stay(field, value):
    document = {"1": {"inputs": {field: value}}, "2": {"inputs": {"text": value}}}
    assert clean(document) == [document]


def test_lists_of_names_and_values_lose_the_values_of_secrets():
    for name, value in (("key", "value"), ("k", "v"), ("id", "val"), ("name", "val")):
        [found] = clean([{name: "api_key", value: OPAQUE}, {name: "style", value: "oil"}])
        assert found == [{name: "api_key", value: MASK}, {name: "style", value: "oil"}]


def test_a_list_of_a_name_and_a_credential_loses_the_credential():
    headers = [["X-Api-Key", OPAQUE], ["Accept", "text/html"], ["password", "garden"], ["key", "light"]]
    document = {"1": {"inputs": {"headers": headers}}, "2": {"inputs": {"text": f"see {OPAQUE}"}}}
    [found] = clean(document)
    assert found["1"]["inputs"]["headers"] == [["X-Api-Key", MASK], *headers[1:]]
    assert OPAQUE not in json.dumps(found)


@pytest.mark.parametrize("begin", ["", "data:image/png;base64,"])
def test_images_and_arrays_in_base64_stay(begin):
    """Their zeros look like a key of Twitter, and other stretches between "+" and "/" like one of Meta."""
    rng = random.Random(3)
    sparse = b"".join(bytes(rng.randrange(10, 30)) + rng.randbytes(90) for _ in range(300))
    words = ["+".join(("EAA" + "".join(rng.choices(ALNUM, k=120)), "x")) for _ in range(20)]
    for text in (base64.b64encode(sparse).decode(), "a/" + "/".join(words)):
        document = {"1": {"inputs": {"image": begin + text, "mask": [text]}}}
        assert clean(document) == [document]


def test_a_secret_that_comes_through_links_is_one_where_it_stands():
    prompt = {
        "1": {"class_type": "Loader", "inputs": {"api_key": ["2", 0]}},
        "2": {"class_type": "Reroute", "inputs": {"": ["3", 0]}},
        "3": {"class_type": "PrimitiveString", "inputs": {"value": "swordfish"}},
        "4": {"class_type": "Text", "inputs": {"text": "a swordfish"}},
    }
    workflow = {"nodes": [{"type": "PrimitiveString", "widgets_values": ["swordfish"]}]}
    cleaned, nodes = clean(prompt, workflow)
    assert cleaned["3"]["inputs"] == {"value": MASK}  # type: ignore[index]
    assert cleaned["4"] == prompt["4"]  # type: ignore[index]
    assert nodes == {"nodes": [{"type": "PrimitiveString", "widgets_values": [MASK]}]}


def test_links_in_a_circle_or_to_nowhere_end():
    circle = {"1": {"inputs": {"api_key": ["2", 0]}}, "2": {"inputs": {"value": ["1", 0]}}}
    assert clean(circle, {"1": {"inputs": {"token": ["9", 0]}}})[0] == circle


def test_a_header_in_a_list_of_names_and_values():
    headers = [{"name": "Authorization", "value": "swordfish"}, {"key": "Accept", "value": "image/png"}]
    assert clean(headers)[0] == [{"name": "Authorization", "value": MASK}, headers[1]]


def test_the_places_are_told_and_bounded():
    scrubber = Scrubber()
    scrubber.all({"prompt": {str(n): {"inputs": {"password": "swordfish"}} for n in range(20)}})
    assert scrubber.count == 20
    assert scrubber.places[0] == "prompt.0.inputs.password"
    assert len(scrubber.places) == PLACES


def test_escapes_do_not_hide_a_secret_from_the_quick_look():
    text = '{"\\u0074ext": "\\u0073k-' + OPAQUE + '"}'
    assert OPAQUE not in str(Scrubber().all({"prompt": json.loads(text)}, text))


def test_what_stands_under_such_a_name_is_masked_but_links_and_numbers_stay():
    before = {
        "1": {"inputs": {"api_key": "abc", "token": ["4", 0], "password": 5, "text": "hello", "secret": ""}}
    }
    given = copy.deepcopy(before)
    scrubber = Scrubber()
    after = scrubber.all({"d": given})["d"]
    assert after == {
        "1": {"inputs": {"api_key": MASK, "token": ["4", 0], "password": 5, "text": "hello", "secret": ""}}
    }
    assert scrubber.count == 1
    assert given == before


def test_the_number_of_a_linked_node_is_no_secret():
    documents = [{"1": {"inputs": {"token": ["subgraph:77", 0]}}}, {"id": "subgraph:77"}]
    assert clean(*documents) == documents


def test_maps_and_lists_under_such_a_name_are_masked_throughout():
    (after,) = clean({"api_keys": ["one", "two", "three"], "credentials": {"user": "me", "n": 1}})
    assert after == {"api_keys": [MASK] * 3, "credentials": {"user": MASK, "n": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bearer abcdefghijklmnop1234", f"Bearer {MASK}"),
        ("https://me:hunter22@example.org/x", f"https://{MASK}@example.org/x"),
        (
            "https://example.org/m?type=Model&token=0123456789abcdef",
            f"https://example.org/m?type=Model&token={MASK}",
        ),
    ],
)
def test_only_the_secret_part_of_a_text_goes(text, expected):
    assert clean(text) == [expected]


def test_a_secret_of_the_prompt_is_found_again_in_the_workflow():
    prompt = {"1": {"inputs": {"password": "correct horse 5", "secret": "correct horse"}}}
    workflow = {"nodes": [{"widgets_values": ["x", "the correct horse 5!", "correct horse"]}]}
    assert clean(prompt, workflow)[1] == {"nodes": [{"widgets_values": ["x", f"the {MASK}!", MASK]}]}


def test_a_word_that_somebody_calls_a_token_does_not_tear_holes_into_prompts():
    prompt = {"1": {"inputs": {"token": "photograph"}}, "2": {"inputs": {"text": "a photograph of a cat"}}}
    assert clean(prompt)[0]["2"] == prompt["2"]


def test_of_two_secrets_that_begin_alike_none_leaves_its_end():
    documents = [{"password": "abcdefg1", "api_key": "abcdefg1234"}, ["x abcdefg1234 y"]]
    assert clean(*documents)[1] == [f"x {MASK} y"]


def test_a_short_secret_is_not_looked_for_elsewhere():
    assert clean({"token": "cat"}, {"text": "a cat"})[1] == {"text": "a cat"}


def _node(values: list[object]) -> dict[str, object]:
    return {
        "inputs": [
            {"name": "model", "link": 3},
            {"name": "api_key", "widget": {"name": "api_key"}},
            {"name": "seed", "widget": {"name": "seed"}},
        ],
        "widgets_values": values,
    }


def test_a_widget_of_the_workflow_is_known_by_the_name_of_its_input():
    (after,) = clean(_node(["abc", 5]))
    assert after["widgets_values"] == [MASK, 5]


def test_where_places_do_not_match_what_could_be_meant_goes():
    (after,) = clean(_node(["abc", 5, "randomize", "two words"]))
    assert after["widgets_values"] == [MASK, 5, "randomize", "two words"]


def test_widget_values_with_names_of_their_own():
    (after,) = clean({"widgets_values": {"api_key": "abc", "steps": 4}})
    assert after == {"widgets_values": {"api_key": MASK, "steps": 4}}
