"""What holds for all tests: none depends on how fast the machine is that they happen to run on."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A machine that is busy with something else makes no property false.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
