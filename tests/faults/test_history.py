"""Finished jobs: however many there were, new ones are taken, and a start is quick."""

from __future__ import annotations

import numpy as np
from measured import Figures
from running_farm import Start

from luna_farm_client import SaveImage, SaveRequest

IMAGES = 128


def test_more_finished_jobs_than_the_journal_could_hold_and_new_ones_are_taken(
    farm: Start, figures: Figures
) -> None:
    """Several times the bytes of the journal in reports; nothing is refused."""
    one = farm(journal_bytes="256KiB")
    pixels = np.zeros((IMAGES, 4, 4, 3), np.uint8)
    with one.client() as client:
        jobs = []
        for _ in range(24):
            request = SaveRequest(
                images=[SaveImage(pixels)], output_dir=one.out, filename="a", png_compression=0
            )
            receipt = client.submit(request, when_busy="report")
            assert client.wait(receipt.job_id, 300).state == "done"
            jobs.append(receipt.job_id)
        one.kill()
        reports = (one.state / "reports").stat().st_size
        one.restart()
        assert client.job(jobs[-1]).state == "done"
        assert len(client.jobs(limit=100)) == 24
        receipt = client.submit(request, when_busy="report")
        assert client.wait(receipt.job_id, 300).state == "done"
    assert reports > 4 * 262144
    assert (one.state / "journal").stat().st_size < 2 * 262144
    assert one.stop() == 0
    figures("state folder", "24 jobs of 128 images, a journal of 256 KiB", refused=0, reports_bytes=reports)
