"""The record of everything that was used. `book.py` says how it is kept."""

from emulator.ledger.book import Ledger
from emulator.ledger.files import busy, unreadable, unusable
from emulator.ledger.rows import (
    ENVIRONMENTS,
    TRAINED,
    Counts,
    InvocationRow,
    Place,
    Roll,
    Sums,
    UsageRecord,
    Window,
)
from emulator.ledger.schema import APPLICATION_ID, VERSION

__all__ = [
    "APPLICATION_ID",
    "ENVIRONMENTS",
    "TRAINED",
    "VERSION",
    "Counts",
    "InvocationRow",
    "Ledger",
    "Place",
    "Roll",
    "Sums",
    "UsageRecord",
    "Window",
    "busy",
    "unreadable",
    "unusable",
]
