"""The bill in columns of AWS's Cost and Usage Report 2.0: those that SageMaker's lines fill."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from emulator.billing import UsageKind
from emulator.daily import Day, sheet, stamp

COLUMNS = (
    "bill_bill_type", "bill_billing_entity", "bill_billing_period_end_date",
    "bill_billing_period_start_date", "bill_payer_account_id", "identity_line_item_id",
    "identity_time_interval", "line_item_currency_code", "line_item_legal_entity",
    "line_item_line_item_description", "line_item_line_item_type", "line_item_operation",
    "line_item_product_code", "line_item_resource_id", "line_item_unblended_cost",
    "line_item_unblended_rate", "line_item_usage_account_id", "line_item_usage_amount",
    "line_item_usage_end_date", "line_item_usage_start_date", "line_item_usage_type",
    "pricing_public_on_demand_cost", "pricing_public_on_demand_rate", "pricing_term",
    "pricing_unit", "product_instance_type", "product_product_family", "product_region_code",
    "product_servicecode",
)  # fmt: skip
SERVICE = "AmazonSageMaker"
_HELD = {UsageKind.INSTANCE: "RunInstance", UsageKind.TRAINING: "RunInstance",
         UsageKind.VOLUME: "RunInstance"}  # fmt: skip


def as_csv(days: Iterable[Day], currency: str) -> str:
    """The whole table as CSV."""
    return sheet(COLUMNS, (_row(one, currency) for one in days))


def _row(day: Day, currency: str) -> dict[str, object]:
    charge, resource = day.charge, day.resource
    first, following = day.month
    about = f"{day.day}|{resource.arn}|{charge.usage_type}|{charge.since}|{charge.note}"
    instance = charge.sku if charge.kind in _HELD and charge.sku.startswith("ml.") else None
    price = f"{charge.price:f}" if charge.price is not None else ""
    described = f"${price} per {charge.unit} for {charge.usage_type}"
    return {
        "bill_bill_type": "Anniversary",
        "bill_billing_entity": "AWS",
        "bill_billing_period_end_date": stamp(following),
        "bill_billing_period_start_date": stamp(first),
        "bill_payer_account_id": resource.account,
        "identity_line_item_id": hashlib.sha256(about.encode()).hexdigest()[:32],
        "identity_time_interval": f"{stamp(day.start)}/{stamp(day.end)}",
        "line_item_currency_code": currency,
        "line_item_legal_entity": "Lukewarm",
        "line_item_line_item_description": ", ".join(filter(None, (described, charge.note))),
        "line_item_line_item_type": _type(charge.note),
        "line_item_operation": _HELD.get(charge.kind, "Invoke-Endpoint"),
        "line_item_product_code": SERVICE,
        "line_item_resource_id": resource.arn,
        "line_item_unblended_cost": f"{charge.amount:f}",
        "line_item_unblended_rate": price,
        "line_item_usage_account_id": resource.account,
        "line_item_usage_amount": f"{charge.quantity:f}",
        "line_item_usage_end_date": stamp(day.end),
        "line_item_usage_start_date": stamp(day.start),
        "line_item_usage_type": charge.usage_type,
        "pricing_public_on_demand_cost": f"{charge.amount:f}",
        "pricing_public_on_demand_rate": price,
        "pricing_term": "OnDemand",
        "pricing_unit": charge.unit,
        "product_instance_type": instance,
        "product_product_family": charge.family,
        "product_region_code": resource.region,
        "product_servicecode": SERVICE,
    }


def _type(note: str) -> str:
    return "SavingsPlanNegation" if "savings plan" in note else "Usage"
