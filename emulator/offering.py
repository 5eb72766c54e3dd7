"""The Pricing API's GetProducts, from the price tables. Knows no protocol."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.billing import MEASURES, Price, UsageKind
from emulator.catalogue import Tables
from emulator.errors import ValidationException
from emulator.pricelist import PriceList

SERVICE = "AmazonSageMaker"
PAGE = 100
_COMPONENTS = {UsageKind.INSTANCE: "Hosting", UsageKind.TRAINING: "Training"}
Params = Mapping[str, Any]


def products(params: Params, tables: Tables) -> dict[str, Any]:
    """The answer: products that all filters match, each with its price, as JSON texts. Raises
    ValidationException."""
    if params["ServiceCode"] != SERVICE:
        raise ValidationException(
            f"There is no offer of {params['ServiceCode']!r} here: the prices are {SERVICE}'s."
        )
    found = [one for one in _all(tables) if _matches(one, params.get("Filters", ()))]
    first, size = _place(params.get("NextToken", "")), params.get("MaxResults", PAGE)
    document: dict[str, Any] = {
        "FormatVersion": "aws_v1",
        "PriceList": [json.dumps(one) for one in found[first : first + size]],
    }
    if first + size < len(found):
        document["NextToken"] = base64.b64encode(str(first + size).encode()).decode()
    return document


def _all(tables: Tables) -> Iterator[dict[str, Any]]:
    for region in tables.regions:
        listed = tables.find(region)
        for kind, sku, price in listed.prices:
            if price.since in ("", *_latest(listed, kind, sku)):
                yield _product(listed, kind, sku, price)


def _latest(listed: PriceList, kind: UsageKind, sku: str) -> tuple[str, ...]:
    """The day since which the price holds that is the last one."""
    price = listed.latest.find(kind, sku)
    return (price.since,) if price else ()


def _product(listed: PriceList, kind: UsageKind, sku: str, price: Price) -> dict[str, Any]:
    number = hashlib.sha256(f"{listed.region}/{price.usage_type}".encode()).hexdigest()[:16].upper()
    attributes = {
        "servicecode": SERVICE,
        "servicename": "Amazon SageMaker",
        "regionCode": listed.region,
        "locationType": "AWS Region",
        "usagetype": price.usage_type,
        "operation": "RunInstance" if sku.startswith("ml.") else "Invoke-Endpoint",
    }
    if sku.startswith("ml."):
        component = _COMPONENTS[kind]
        attributes |= {"instanceName": sku, "instanceType": f"{sku}-{component}",
                       "component": component}  # fmt: skip
    return {
        "product": {
            "productFamily": MEASURES[kind].family,
            "attributes": attributes,
            "sku": number,
        },
        "serviceCode": SERVICE,
        "terms": {"OnDemand": {f"{number}.OD": _term(number, listed, price)}},
        "version": price.date,
        "publicationDate": price.date,
    }


def _term(number: str, listed: PriceList, price: Price) -> dict[str, Any]:
    bounds = [*(f"{tier.above:f}" for tier in price.tiers)]
    amounts = [price.amount, *(tier.amount for tier in price.tiers)]
    dimensions = {
        f"{number}.OD.{rank}": {
            "unit": price.unit,
            "beginRange": begin,
            "endRange": end,
            "description": f"${amount:f} per {price.unit} ({price.source}, {price.confidence})",
            "pricePerUnit": {listed.latest.currency: f"{amount:f}"},
            "appliesTo": [],
            "rateCode": f"{number}.OD.{rank}",
        }
        for rank, (begin, end, amount) in enumerate(
            zip(["0", *bounds], [*bounds, "Inf"], amounts, strict=True)
        )
    }
    return {
        "sku": number,
        "offerTermCode": "OD",
        "effectiveDate": f"{price.since or '1970-01-01'}T00:00:00Z",
        "priceDimensions": dimensions,
        "termAttributes": {},
    }


def _matches(product: Mapping[str, Any], filters: Any) -> bool:
    fields = {**product["product"]["attributes"],
              "productFamily": product["product"]["productFamily"], "ServiceCode": SERVICE,
              "sku": product["product"]["sku"]}  # fmt: skip
    for one in filters:
        if one["Type"] != "TERM_MATCH":
            raise ValidationException(f"A filter has the Type {one['Type']}: here TERM_MATCH only.")
        if fields.get(one["Field"]) != one["Value"]:
            return False
    return True


def _place(token: str) -> int:
    try:
        return int(base64.b64decode(token, validate=True)) if token else 0
    except ValueError:
        raise ValidationException(f"The NextToken {token[:40]!r} is none of ours.") from None
