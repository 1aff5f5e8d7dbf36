"""One memory of publication: each image becomes one file, and nothing else lies in the folder."""

from __future__ import annotations

import numpy as np
import pytest
from measured import Figures
from running_farm import Start

from luna_farm_client import SaveImage, SaveRequest

ROW = "names"
DISKS = ["", "no unnamed files", "no links"]


@pytest.mark.parametrize("disk", DISKS)
def test_once_a_job_is_done_no_temporary_name_is_left(farm: Start, figures: Figures, disk: str) -> None:
    one = farm(**({"LUNA_FARM_TEST_MUTATION": disk} if disk else {}))
    pixels = np.zeros((16, 16, 3), np.uint8)
    left = 0
    with one.client() as client:
        for _ in range(200):
            receipt = client.submit(SaveRequest(images=[SaveImage(pixels)], output_dir=one.out, filename="a"))
            assert client.wait(receipt.job_id, 300).state == "done"
            left += bool(one.temps())
    one.stop()
    figures.none(ROW, f"200 jobs are done, a disk with {disk or 'everything'}", temporary_name_left=left)


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("point", ["writer.noted", "writer.named"])
def test_equal_images_of_one_name_become_one_file_each(
    farm: Start, figures: Figures, disk: str, point: str
) -> None:
    """Rejected images of one name go to one folder; each worker dies over its second one."""
    environ = {"LUNA_FARM_TEST_MUTATION": disk} if disk else {}
    nth = 5 if disk == "no links" and point == "writer.noted" else 2  # each way is noted until one works
    one = farm(max_workers=1, min_workers=1, LUNA_FARM_CRASH=f"{point}:{nth}", **environ)
    pixels = np.zeros((16, 16, 3), np.uint8)
    images = [SaveImage(pixels, affix=f"A{n}", subdir=True) for n in range(4)]
    request = SaveRequest(
        images=images, output_dir=one.out, filename="a", quality_gate="variance", min_quality_threshold=0.9
    )
    with one.client() as client:
        receipt = client.submit(request)
        report = client.wait(receipt.job_id, 300)
        while report.state == "failed":
            client.retry(receipt.job_id)
            report = client.wait(receipt.job_id, 300)
    one.stop()
    paths = {image.path for image in report.images}
    found = {str(path) for path in one.out.rglob("*") if path.is_file()}
    assert len(paths) == 4
    figures.none(
        ROW, f"equal rejected images, {point}, {disk}", lost=len(paths - found), twice=len(found - paths)
    )
