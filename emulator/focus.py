"""The bill in FOCUS 1.2, the FinOps Foundation's open specification of cost and usage data.

Every column of the specification is there. What this server does not know (invoices, commitments,
capacity reservations, availability zones) is null.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from decimal import Decimal

from emulator.daily import Day, Row, sheet, stamp

VERSION = "1.2"
_COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost",
          "PricingCurrencyEffectiveCost")  # fmt: skip
_PRICES = ("ContractedUnitPrice", "ListUnitPrice", "PricingCurrencyContractedUnitPrice",
           "PricingCurrencyListUnitPrice")  # fmt: skip
_QUANTITIES = ("CommitmentDiscountQuantity", "ConsumedQuantity", "PricingQuantity")
NUMBERS = frozenset((*_COSTS, *_PRICES, *_QUANTITIES))
TIMES = frozenset(("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd",
                   "ChargePeriodStart"))  # fmt: skip

COLUMNS = tuple(sorted((
    *NUMBERS, *TIMES, "AvailabilityZone", "BillingAccountId", "BillingAccountName",
    "BillingAccountType", "BillingCurrency", "CapacityReservationId", "CapacityReservationStatus",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedUnit",
    "InvoiceId", "InvoiceIssuerName", "PricingCategory", "PricingCurrency", "PricingUnit",
    "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName",
    "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter",
    "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "SubAccountType", "Tags",
)))  # fmt: skip
_REGIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "Europe (Ireland)",
    "eu-west-3": "Europe (Paris)",
    "eu-central-1": "Europe (Frankfurt)",
}
_TYPES = {"endpoint": "Endpoint", "training-job": "Training job"}


def as_csv(days: Iterable[Day], currency: str) -> str:
    """The whole table as CSV."""
    return sheet(COLUMNS, (_plain(_row(one, currency)) for one in days))


def as_parquet(days: Iterable[Day], currency: str) -> bytes:
    """The same as Parquet: amounts as decimals with 15 places, times in UTC."""
    import pyarrow as pa  # large, and only for this
    from pyarrow import parquet

    number, time = pa.decimal128(38, 15), pa.timestamp("s", tz="UTC")
    schema = pa.schema(
        [
            (name, number if name in NUMBERS else time if name in TIMES else pa.string())
            for name in COLUMNS
        ]
    )
    rows = [_row(one, currency) | _times(one) for one in days]
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")
    return out.getvalue()


def _plain(row: Row) -> Row:
    """Never a power of ten."""
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in row.items()
    }


def _times(day: Day) -> dict[str, object]:
    start, end = day.month
    return {"BillingPeriodStart": start, "BillingPeriodEnd": end,
            "ChargePeriodStart": day.start, "ChargePeriodEnd": day.end}  # fmt: skip


def _row(day: Day, currency: str) -> dict[str, object]:
    charge, resource = day.charge, day.resource
    amount, price = charge.amount or Decimal(0), charge.price or Decimal(0)
    credit = price < 0
    row: dict[str, object] = dict.fromkeys(COLUMNS)
    row |= {name: stamp(at) for name, at in _times(day).items()}  # type: ignore[arg-type]
    row |= dict.fromkeys(_COSTS, amount)
    row |= dict.fromkeys(_PRICES, None if credit else price)
    quantity = None if credit else charge.quantity
    return row | {
        "BillingAccountId": resource.account,
        "BillingAccountType": "Account",
        "BillingCurrency": currency,
        "ChargeCategory": "Credit" if credit else "Usage",
        "ChargeDescription": ", ".join(filter(None, (charge.usage_type, charge.note))),
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": None if credit else charge.unit,
        "InvoiceIssuerName": "Lukewarm",
        "PricingCategory": None if credit else "Standard",
        "PricingCurrency": currency,
        "PricingQuantity": quantity,
        "PricingUnit": None if credit else charge.unit,
        "ProviderName": "AWS",
        "PublisherName": "AWS",
        "RegionId": resource.region,
        "RegionName": _REGIONS.get(resource.region, resource.region),
        "ResourceId": resource.arn,
        "ResourceName": resource.name,
        "ResourceType": _TYPES[resource.kind],
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Amazon SageMaker",
        "ServiceSubcategory": "Machine Learning",
        "SkuId": charge.usage_type,
        "SkuMeter": charge.kind.value,
        "SkuPriceId": "/".join(filter(None, (charge.usage_type, charge.since))),
        "SubAccountId": resource.account,
        "SubAccountType": "Account",
    }
