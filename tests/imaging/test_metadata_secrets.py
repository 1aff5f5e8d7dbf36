"""Secrets go, settings stay."""

from __future__ import annotations

import copy
import json

import pytest

from luna_farm.imaging.metadata_secrets import MASK, Scrubber, is_secret_name, suspicious

# Put together here, so that no scanner of repositories takes them for real ones.
SHAPES = [
    "sk-" + "proj4-" + "a1B2" * 6,
    "hf_" + "aB3" * 12,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1" * 20,
    "comfyui-" + "0f" * 32,
    "AKIA" + "A1" * 8,
    "AIza" + "a" * 35,
    "xoxb-" + "1234567890-abc",
    "eyJ" + "hbGciOiJI" + ".eyJ" + "zdWIiOiIx" + ".c2ln",
]


NAMES = """
    api_key apiKey API-KEY openai_api_key api_key_comfy_org auth_token_comfy_org token hf_token password
    Password db_password_2 secret client_secret aws_secret_key private_key Authorization credentials
    access_key passphrase
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "token_normalization",
        "tokens",
        "seed",
        "key",
        "hotkey",
        "author",
        "text",
        "secretary",
        "",
        "中",
    ],
)
def test_names_of_settings(name):
    assert not is_secret_name(name)


def test_what_stands_under_such_a_name_is_masked_but_links_and_numbers_stay():
    before = {
        "1": {"inputs": {"api_key": "abc", "token": ["4", 0], "password": 5, "text": "hello", "secret": ""}}
    }
    given = copy.deepcopy(before)
    scrubber = Scrubber()
    (after,) = scrubber.all([given])
    assert after == {
        "1": {"inputs": {"api_key": MASK, "token": ["4", 0], "password": 5, "text": "hello", "secret": ""}}
    }
    assert scrubber.count == 1
    assert given == before


def test_the_number_of_a_linked_node_is_no_secret():
    documents = [{"1": {"inputs": {"token": ["subgraph:77", 0]}}}, {"id": "subgraph:77"}]
    assert Scrubber().all(documents) == documents


def test_maps_and_lists_under_such_a_name_are_masked_throughout():
    (after,) = Scrubber().all([{"api_keys": ["one", "two", "three"], "credentials": {"user": "me", "n": 1}}])
    assert after == {"api_keys": [MASK] * 3, "credentials": {"user": MASK, "n": 1}}


@pytest.mark.parametrize("secret", SHAPES)
def test_what_has_the_shape_of_a_credential_goes_wherever_it_stands(secret):
    (after,) = Scrubber().all([{"text": f"use {secret} please", "list": [secret]}])
    assert after == {"text": f"use {MASK} please", "list": [MASK]}


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
    assert Scrubber().all([text]) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "comfyui-workflow-templates-media-image",
        "task-list-with-many-words-in-it-1",
        "sk-learn-without-any-number-in-it",
        "a bearer of 1234567890123456",
        "https://example.org:8080/path",
        "realistic_hf_model_v12",
    ],
)
def test_innocent_texts_stay(text):
    scrubber = Scrubber()
    assert scrubber.all([text]) == [text]
    assert scrubber.count == 0


def test_a_secret_of_the_prompt_is_found_again_in_the_workflow():
    prompt = {"1": {"inputs": {"password": "correct horse 5", "token": "correct horse"}}}
    workflow = {"nodes": [{"widgets_values": ["x", "the correct horse 5!", "correct horse"]}]}
    assert Scrubber().all([prompt, workflow])[1] == {
        "nodes": [{"widgets_values": ["x", f"the {MASK}!", MASK]}]
    }


def test_a_word_that_somebody_calls_a_token_does_not_tear_holes_into_prompts():
    prompt = {"1": {"inputs": {"token": "photograph"}}, "2": {"inputs": {"text": "a photograph of a cat"}}}
    assert Scrubber().all([prompt])[0]["2"] == prompt["2"]


def test_of_two_secrets_that_begin_alike_none_leaves_its_end():
    documents = [{"token": "abcdefg1", "api_key": "abcdefg1234"}, ["x abcdefg1234 y"]]
    assert Scrubber().all(documents)[1] == [f"x {MASK} y"]


@pytest.mark.parametrize("secret", SHAPES)
def test_the_quick_look_misses_none(secret):
    assert suspicious(json.dumps({"text": f"é {secret}"}))
    assert suspicious(json.dumps({"API key": "x"}))
    assert suspicious('"Bearer abcdefghijklmnop1234"')
    assert suspicious('{"\\u0074oken": "x"}')
    assert suspicious('"https:\\/\\/me:hunter22@example.org"')
    assert not suspicious(
        json.dumps({"text": "a photograph of a cat", "seed": 5, "name": "model.safetensors"})
    )


def test_a_short_secret_is_not_looked_for_elsewhere():
    assert Scrubber().all([{"token": "cat"}, {"text": "a cat"}])[1] == {"text": "a cat"}


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
    (after,) = Scrubber().all([_node(["abc", 5])])
    assert after["widgets_values"] == [MASK, 5]


def test_where_places_do_not_match_every_single_word_of_the_node_goes():
    (after,) = Scrubber().all([_node(["abc", 5, "randomize", "two words"])])
    assert after["widgets_values"] == [MASK, 5, MASK, "two words"]


def test_widget_values_with_names_of_their_own():
    (after,) = Scrubber().all([{"widgets_values": {"api_key": "abc", "steps": 4}}])
    assert after == {"widgets_values": {"api_key": MASK, "steps": 4}}
