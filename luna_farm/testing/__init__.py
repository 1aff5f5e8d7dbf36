"""Shipped for tests: faults that strike at named points, and fakes to test a client of the farm against.

Importing this package must load nothing: the storage layer takes `crash_point` from it in production.
"""
