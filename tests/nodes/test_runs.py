"""web/luna_runs.js: which images a node shows, whatever order the messages of its jobs come in."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import luna_farm_nodes

SCRIPT = Path(luna_farm_nodes.__file__).resolve().parent / "web" / "luna_runs.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine: apt-get install nodejs")
# Plays histories of messages and returns, for each, what was shown after every message.
PLAY = """
const { Runs } = await import(`data:text/javascript,${encodeURIComponent(process.argv[1])}`);
let text = "";
for await (const part of process.stdin) text += part;
const shown = JSON.parse(text).map((history) => {
  const runs = new Runs();
  return history.map(([kind, prompt, jobs]) => {
    const where = { node: "9", prompt_id: prompt };
    if (kind === "begin") runs.begin(where, jobs);
    else if (kind === "wait") runs.wait(where, jobs[0]);
    else runs.end(where, jobs[0]);
    return kind === "wait" ? runs.newest.map(({ state, left }) => `${state} ${left}`) : runs.images();
  });
});
console.log(JSON.stringify(shown));
"""
Message = tuple[str, str, list[dict[str, Any]]]


def play(histories: list[list[Message]]) -> list[list[list[str]]]:
    command = [str(NODE), "--input-type=module", "-e", PLAY, SCRIPT.read_text("utf-8")]
    done = subprocess.run(command, input=json.dumps(histories), capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return list(json.loads(done.stdout))


def job(number: int, state: str = "done") -> dict[str, Any]:
    pictures = [f"{number}"] if state == "done" else []
    return {"job_id": f"job{number}", "number": number, "state": state, "pictures": pictures}


def history(chance: random.Random, prompts: int, most_jobs: int) -> list[Message]:
    """Messages as ComfyUI sends them: nodes' own in the order of the prompts, a job's end at any time, also
    before the message of its node, which then may say already how the job ended."""
    order: list[tuple[float, Message]] = []
    number = 0
    for prompt in range(prompts):
        numbers = range(number, number := number + chance.randint(1, most_jobs))
        ends = [prompt + chance.choice([-0.2, 0.2, 0.9, 2.5, 6.0]) * chance.random() for _ in numbers]
        states = [
            job(one, "done" if end < prompt else "queued") for one, end in zip(numbers, ends, strict=True)
        ]
        order.append((float(prompt), ("begin", f"p{prompt}", states)))
        order += [(end, ("end", f"p{prompt}", [job(one)])) for one, end in zip(numbers, ends, strict=True)]
    return [message for _, message in sorted(order, key=lambda one: one[0])]


@pytest.mark.parametrize("most_jobs", [1, 3], ids=["one-job", "lists"])
def test_results_are_never_doubled_mixed_or_missing(most_jobs):
    chance = random.Random(16 + most_jobs)
    histories = [history(chance, chance.randint(1, 8), most_jobs) for _ in range(300)]
    for messages, shown in zip(histories, play(histories), strict=True):
        prompt_of = {one["job_id"]: prompt for _, prompt, jobs in messages for one in jobs}
        newest = -1
        for images in shown:
            prompts = {prompt_of[f"job{image}"] for image in images}
            assert len(prompts) <= 1, "images of one prompt only"
            assert len(set(images)) == len(images), "each once"
            if prompts:
                number = int(prompts.pop()[1:])
                assert number >= newest, "never back to an older one"
                newest = number
        last = max(int(prompt[1:]) for prompt in prompt_of.values())
        assert {prompt_of[f"job{image}"] for image in shown[-1]} == {f"p{last}"}
        assert len(shown[-1]) == sum(prompt == f"p{last}" for prompt in prompt_of.values()), (
            "all of the newest"
        )


def test_a_newer_result_without_images_clears_the_older():
    refused = {"job_id": "", "number": 2, "state": "refused", "pictures": []}
    begun: Message = ("begin", "p1", [job(1)])
    assert play([[begun, ("begin", "p2", [refused])]]) == [[["1"], []]]


def test_the_older_result_stays_while_the_newer_is_pending():
    assert play([[("begin", "p1", [job(1)]), ("begin", "p2", [job(2, "queued")])]]) == [[["1"], ["1"]]]


def test_a_result_from_the_cache_is_the_same_result():
    begun: Message = ("begin", "p1", [job(1, "queued")])
    again: Message = ("begin", "p2", [job(1, "queued")])
    assert play([[begun, again, ("end", "p1", [job(1)])]]) == [[[], [], ["1"]]]


def test_an_end_that_came_first_stays_an_end():
    early: Message = ("end", "p1", [job(1)])
    assert play([[early, ("begin", "p1", [job(1, "queued")])]]) == [[["1"], ["1"]]]


def test_the_end_of_a_forgotten_result_changes_nothing():
    begun = [("begin", f"p{number}", [job(number, "queued")]) for number in (1, 2)]
    assert play([[*begun, ("end", "p2", [job(2)]), ("end", "p1", [job(1)])]])[0][-2:] == [["2"], ["2"]]


def test_a_page_that_was_reloaded_learns_of_a_job_while_it_waits():
    waiting = {**job(1, "queued"), "left": 3}
    found = play(
        [[("wait", "p1", [waiting]), ("wait", "p1", [{**waiting, "left": 1}]), ("end", "p1", [job(1)])]]
    )
    assert found == [[["queued 3"], ["queued 1"], ["1"]]]


def test_what_waits_is_no_news_once_it_ended_or_a_newer_one_is_shown():
    waiting = {**job(1, "queued"), "left": 3}
    ended: Message = ("end", "p1", [job(1)])
    newer: Message = ("end", "p2", [job(2)])
    found = play([[ended, ("wait", "p1", [waiting])], [newer, ("wait", "p1", [waiting])]])
    assert [one[1] for one in found] == [["done undefined"], ["done undefined"]]
