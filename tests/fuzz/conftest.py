"""Two profiles of one set of claims: `make test` tries each briefly, `make fuzz` for minutes."""

import os

from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}

settings.register_profile("short", max_examples=60, derandomize=True, database=None, **_COMMON)
settings.register_profile("long", max_examples=1000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("FUZZ_PROFILE", "short"))
