"""Provisioning delays that AWS adds to a cold start and this machine does not: modelled, seeded.

`aws` draws from the profile of that name, which has the published figures: `profiles/aws.toml`.
What the runtime and the model then take is measured here and comes on top.
"""

from __future__ import annotations

import random

from emulator import profiles
from emulator.core import SECOND
from emulator.profiles import Profile

AWS = "aws"


class Delays:
    """Draws one provisioning delay per cold start from a rule: `none`, `aws`, seconds, or
    `profile`, which is what the profile in force says, and nothing if it does not."""

    def __init__(self, rule: str, seed: int, profile: Profile | None = None) -> None:
        self._seed = seed
        modelled = {"profile": profile, AWS: profiles.load(AWS) if rule == AWS else None}.get(rule)
        self._figure = modelled.cold_start if modelled else None
        self._fixed_ns = 0 if rule in ("profile", AWS, "none") else round(float(rule) * SECOND)

    def draw_ns(self, variant: str, environment: int) -> int:
        """The delay of environment number `environment` of `variant` ("endpoint/variant"): the
        same for the same seed, variant and number."""
        if self._figure is None:
            return self._fixed_ns
        return self._figure.draw_ns(random.Random(f"{self._seed}/{variant}/{environment}"))
