"""What AWS sells: the price tables, free tier and instance types of `emulator/prices/`, and the
price tables of a folder, which go before those.

Each file is read once. To add a region, add its TOML; nothing lists the files.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from emulator import pricelist
from emulator.allowances import Allowance
from emulator.billing import MEASURES, PriceTable, UsageKind
from emulator.core import GIB
from emulator.errors import SetupError
from emulator.pricelist import PriceList
from emulator.provenance import Provenance

_INSTANCES = "instances.toml"
_FREE = "free-tier.toml"
_FOLDER = files("emulator") / "prices"


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A hosting instance type, such as `ml.m5.large`: 2 vCPUs, 8 GiB, no GPU."""

    name: str
    vcpus: int
    memory_bytes: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Tables:
    """The price lists in force, by region: those of a folder, else those that come along."""

    own: Mapping[str, PriceList] = field(default_factory=dict)
    places: Mapping[str, Path] = field(default_factory=dict)  # the files of `own`

    @classmethod
    def of(cls, folder: Path) -> Tables:
        """With the tables `REGION.toml` of a folder, which need not exist. Raises SetupError for
        one that cannot be used."""
        places = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        return cls({name: _own(name, path) for name, path in places.items()}, places)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that have a price list, in alphabetical order."""
        return tuple(sorted({*regions(), *self.own}))

    def find(self, region: str) -> PriceList:
        """The prices of a region. Raises SetupError for one without a table."""
        if region not in self.regions:
            raise SetupError(
                f"There is no price table for the region {region!r}; set EMULATOR_REGION to one of "
                f"{', '.join(self.regions)}."
            )
        return self.own.get(region) or _packaged(region)

    def known(self, region: str) -> PriceList:
        """The same, and for a region without a table one without a price, never a free one."""
        return self.find(region) if region in self.regions else PriceList.empty(region)


@cache
def regions() -> tuple[str, ...]:
    """The regions whose price table comes along, in alphabetical order."""
    names = (entry.name for entry in _FOLDER.iterdir())
    tables = (name for name in names if name.endswith(".toml") and name not in (_INSTANCES, _FREE))
    return tuple(sorted(name.removesuffix(".toml") for name in tables))


def price_table(region: str) -> PriceTable:
    """The latest prices of a region, such as "eu-west-3", as they come along. Raises SetupError for
    one without a table."""
    return Tables().find(region).latest


@cache
def _packaged(region: str) -> PriceList:
    name = f"{region}.toml"
    return pricelist.parse((_FOLDER / name).read_text(encoding="utf-8"), name)


def _own(region: str, path: Path) -> PriceList:
    try:
        found = pricelist.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"The price table {path} cannot be read: {error}.") from None
    if found.region != region:
        raise SetupError(
            f"The price table {path} is of the region {found.region!r}: name it "
            f"{found.region}.toml."
        )
    return found


@cache
def free_tier() -> tuple[Allowance, ...]:
    """What AWS gives an account for nothing each month, for as long as it does."""
    document = tomllib.loads((_FOLDER / _FREE).read_text(encoding="utf-8"), parse_float=Decimal)
    return tuple(_allowance(block) for block in document["allowances"])


def _allowance(block: Mapping[str, Any]) -> Allowance:
    Provenance.of(block)
    kind = UsageKind(block["kind"])
    skus = frozenset(block["amounts"]) - {"any"}
    (quantity,) = set(block["amounts"].values())  # together, not each
    return Allowance(kind, skus, quantity * MEASURES[kind].base_units)


def instance_type(name: str) -> InstanceType:
    """The hosting instance type of that name. Raises SetupError for one that is not known."""
    known = instance_types()
    if name in known:
        return known[name]
    meant = f"ml.{name.removeprefix('ml.')}"
    close = difflib.get_close_matches(meant, known, n=3, cutoff=0.5) or list(known)[:3]
    raise SetupError(
        f"The instance type {name!r} is not one that hosts endpoints: "
        f"did you mean {', '.join(close)}?"
    )


@cache
def instance_types() -> Mapping[str, InstanceType]:
    """All hosting instance types by name, small to large within a family."""
    text = (_FOLDER / _INSTANCES).read_text(encoding="utf-8")
    families = tomllib.loads(text, parse_float=Decimal)
    return {
        entry.name: entry
        for family, sizes in families.items()
        for entry in (_instance(f"ml.{family}.{size}", given) for size, given in sizes.items())
    }


def _instance(name: str, given: Mapping[str, Any]) -> InstanceType:
    return InstanceType(name, given["vcpus"], int(given["gib"] * GIB), given.get("gpus", 0))
