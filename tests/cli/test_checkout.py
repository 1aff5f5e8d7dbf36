"""`python -m luna_farm` in a clone of which nothing is installed."""

from __future__ import annotations

import sys

import pytest

from luna_farm.cli import checkout


@pytest.mark.parametrize(("name", "folder"), checkout.FOLDERS.items())
def test_it_finds_the_packages_of_the_checkout(name, folder):
    spec = checkout.CheckoutFinder.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations == [str(checkout.ROOT / folder)]


def test_it_knows_nothing_else():
    assert checkout.CheckoutFinder.find_spec("numpy") is None
    assert checkout.CheckoutFinder.find_spec("luna_farm_client", ["/elsewhere"]) is None


def test_where_the_package_was_installed_there_is_no_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    assert checkout.CheckoutFinder.find_spec("luna_farm_client") is None


def test_it_is_asked_last_and_once(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    checkout.find_packages()
    checkout.find_packages()
    assert sys.meta_path[-1] is checkout.CheckoutFinder
    assert sys.meta_path.count(checkout.CheckoutFinder) == 1
