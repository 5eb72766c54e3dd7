"""Provisioning delays that AWS adds to a cold start and this machine does not: modelled, seeded.

`aws` is a lognormal with median 6.0 s and 90th percentile 10.2 s: published overheads of light
CPU images are 5.4-6.6 s (XGBoost at 2048 MB) and "5-10 s" (tabular models);
docs/fidelity.md. What the runtime and the model then take is measured here and comes on top.
"""

from __future__ import annotations

import math
import random

from emulator.core import SECOND

_MEDIAN_S = 6.0
_SIGMA = math.log(10.2 / 6.0) / 1.2816  # 1.2816 is the normal's 90th percentile


class Delays:
    """Draws one provisioning delay per cold start from a rule: `none`, `aws`, or seconds."""

    def __init__(self, rule: str, seed: int) -> None:
        self._rule = rule
        self._seed = seed

    def draw_ns(self, variant: str, environment: int) -> int:
        """The delay of environment number `environment` of `variant` ("endpoint/variant"): the
        same for the same seed, variant and number."""
        if self._rule == "none":
            return 0
        if self._rule != "aws":
            return round(float(self._rule) * SECOND)
        stream = random.Random(f"{self._seed}/{variant}/{environment}")
        return round(_MEDIAN_S * math.exp(_SIGMA * stream.gauss(0, 1)) * SECOND)
