from __future__ import annotations

from hypothesis import HealthCheck, settings

# What these strategies draw is large, and a machine under load is slow: neither says anything about the codec.
settings.register_profile("serde", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("serde")
