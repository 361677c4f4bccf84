"""What every test needs: Hypothesis profiles, and threads like those of a worker."""

import os

# Before polars is imported, as in `streams.cli.main`.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("RUST_BACKTRACE", "0")

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", max_examples=100, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("default")
