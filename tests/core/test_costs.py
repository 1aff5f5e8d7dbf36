"""Moving averages of measured times, and what pays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luna_farm.core.costs import Average, Costs, kind_of, moved_ms, size_class
from luna_farm.core.messages import ImageTask, SaveOptions


def task(side: int = 512, format_: str = "png", **changes: Any) -> ImageTask:
    return ImageTask("job", 0, "RAW", format_, 0, 1, "/out/a.png", "shm:a", 0, side, side, 3, **changes)


def options(**fields: Any) -> SaveOptions:
    return SaveOptions(output_dir="/out", **fields)


def moved(put: float, call: float, result: float, encode: float = 1.0) -> dict[str, float]:
    return {"encode": encode, "put": put, "call": call, "result": result}


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_an_average_lies_between_the_least_and_the_greatest(values: list[float]) -> None:
    average = Average()
    for value in values:
        average.add(value)
    assert min(values) - 1e-6 <= average.ms <= max(values) + 1e-6


def test_the_first_measurements_count_equally_and_later_ones_replace_old_times() -> None:
    average = Average()
    average.add(100.0)
    average.add(0.0)
    assert average.ms == 50.0
    for _ in range(40):
        average.add(10.0)
    assert average.ms == pytest.approx(10.0, abs=0.1)


def test_what_was_never_measured_pays_so_that_it_is_measured() -> None:
    costs = Costs()
    assert costs.pays(task(), options())
    costs.add(task(), options(), {"encode": 5.0})
    assert costs.pays(task(), options()), "nothing was moved yet"
    assert costs.move_ms(task()) is None


def test_what_takes_longer_to_encode_than_to_move_pays() -> None:
    costs = Costs()
    costs.add(task(), options(png_compression=9), moved(2.0, 5.0, 1.0, encode=300.0))
    costs.add(task(), options(png_compression=1), {"encode": 2.0})
    assert costs.move_ms(task()) == 8.0
    assert costs.pays(task(), options(png_compression=9))
    assert not costs.pays(task(), options(png_compression=1))
    assert costs.pays(task(), options(png_compression=6)), "another effort is another kind"
    assert costs.pays(task(dtype="uint16"), options(png_compression=1)), "so is another depth"
    assert costs.pays(task(format_="avif"), options(png_compression=1)), "and another format"


def test_another_size_is_expected_in_proportion() -> None:
    costs = Costs()
    costs.add(task(512), options(), {"encode": 10.0})
    assert costs.encode_ms(task(1024), options()) == 40.0
    assert costs.encode_ms(task(256), options()) == 2.5
    costs.add(task(1024), options(), {"encode": 100.0})
    assert costs.encode_ms(task(1024), options()) == 100.0
    assert costs.encode_ms(task(512), options()) == 10.0


def test_the_classes_do_not_depend_on_what_costs_no_time() -> None:
    assert kind_of(task(), options(filename="a")) == kind_of(task(), options(filename="b"))
    assert kind_of(task(format_="jpeg"), options(lossy_quality=80)) == kind_of(
        task(format_="jpeg"), options(lossy_quality=90)
    )
    assert size_class(task(512)) + 2 == size_class(task(1024))
    assert moved_ms({"gate": 3.0}) == 0.0
