"""Metadata that is larger than a request: the images are saved, and what does not fit is beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luna_farm.core.fields import DOCUMENTS_LIMIT
from luna_farm_client import SaveImage, SaveRequest, oversize, save_here
from luna_farm_client.outgoing import Outgoing

PIXELS = np.zeros((4, 4, 3), np.uint8)
HUGE = "x" * (DOCUMENTS_LIMIT + 10)


@pytest.mark.parametrize(
    ("documents", "sent", "left"),
    [
        (
            {"prompt": "{}", "extra_pnginfo": json.dumps({"workflow": 1, "big": HUGE})},
            {"prompt", "workflow"},
            {"big"},
        ),
        (
            {"prompt": HUGE, "extra_pnginfo": '{"workflow": 1}', "metadata": "{}"},
            {"workflow", "metadata"},
            {"prompt"},
        ),
        ({"extra_pnginfo": HUGE}, set(), {"extra_pnginfo"}),
        ({"extra_pnginfo": f"[{HUGE!r}]".replace("'", '"')}, set(), {"extra_pnginfo"}),
        ({"custom_metadata": json.dumps(HUGE), "prompt": "{}"}, {"prompt"}, {"custom_metadata"}),
        ({"prompt": "\u732b" * (DOCUMENTS_LIMIT // 2), "metadata": "{}"}, {"metadata"}, {"prompt"}),
    ],
)
def test_what_fits_is_sent(documents: dict[str, str], sent: set[str], left: set[str]) -> None:
    going, _, staying = oversize.cut(documents)
    assert set(staying) == left
    found = {name for name, text in going.items() if text and name != "extra_pnginfo"}
    found |= set(json.loads(going.get("extra_pnginfo") or "{}"))
    assert found == sent
    assert sum(map(oversize.size, going.values())) <= DOCUMENTS_LIMIT


def test_metadata_of_images_that_does_not_fit_is_beside_the_first(tmp_path: Path) -> None:
    images = [SaveImage(PIXELS, str(n), metadata={"n": n, "text": HUGE[: len(HUGE) // 2]}) for n in range(3)]
    report = save_here(SaveRequest(images, tmp_path, filename="a"))
    assert [image.state for image in report.images] == ["saved"] * 3
    assert "metadata of image 3 (" in report.warnings[0]
    with Image.open(tmp_path / "a_0.png") as image:
        assert image.text["gen_n"] == "0"  # type: ignore[attr-defined]
    beside = json.loads((tmp_path / "a_0.more.json").read_text("ascii"))
    assert beside["metadata of image 3"]["n"] == 2


def test_the_image_is_saved_and_the_rest_is_beside_it(tmp_path: Path) -> None:
    extra = {"workflow": {"nodes": []}, "big": {"api_key": "tr0ub4dor-and-more", "text": HUGE}}
    report = save_here(SaveRequest([SaveImage(PIXELS)], tmp_path, filename="a", extra_pnginfo=extra))
    assert report.images[0].state == "saved"
    assert "big (" in report.warnings[0]
    assert ".more.json" in report.warnings[0]
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["workflow"] == '{"nodes":[]}'  # type: ignore[attr-defined]
    beside = json.loads((tmp_path / "a.more.json").read_text("ascii"))
    assert beside["big"]["text"] == HUGE
    assert beside["big"]["api_key"] == "***"


def test_what_is_no_json_is_written_as_text_and_a_failure_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    oversize.write_beside(str(tmp_path / "a.png"), {"prompt": "{ no json"})
    assert json.loads((tmp_path / "a.more.json").read_text("ascii")) == {"prompt": "{ no json"}
    (tmp_path / "file").touch()
    oversize.write_beside(str(tmp_path / "file/a.png"), {"prompt": "{}"})
    assert "could not be written" in caplog.text


def test_a_client_elsewhere_says_that_it_was_left_out() -> None:
    assert "it was left out" in oversize.sentence({"prompt": "x"}, here=False)


def test_a_destination_has_nothing_beside_it_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Outgoing(SaveRequest([SaveImage(PIXELS)], "s3://bucket/x", extra_pnginfo={"big": HUGE}))
    assert "left out" in out.message()["told"][0]
    oversize.write_beside("s3://bucket/x/a.png", out.left)
    assert "left out of s3://bucket/x/a.png" in caplog.text
    assert list(tmp_path.iterdir()) == []
