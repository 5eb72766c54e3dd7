"""Records as they were before there were accounts, regions and requests, made into those of today.

Then an endpoint's documents had plain names, a model named its copy, and a configuration held its
variants. All of it belonged to the server's own account and region, and was made as a bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from emulator.address import Home, Key
from emulator.endpoints import (
    BUNDLED,
    Container,
    Deployed,
    Deployment,
    Endpoint,
    EndpointConfig,
    Model,
    Record,
    Status,
    Variant,
    made_variant,
    production_variant,
)

Document = Mapping[str, Any]


def is_earlier(document: Document) -> bool:
    return "key" not in document


def records(
    models: Iterable[Document],
    configs: Iterable[Document],
    endpoints: Iterable[Document],
    home: Home,
) -> list[Record]:
    """Today's records of documents that were kept before. Raises KeyError if one is missing."""
    by_name = {one["name"]: one for one in models}
    variants = {one["name"]: tuple(map(made_variant, one["variants"])) for one in configs}
    return [
        *(_model(one, home) for one in by_name.values()),
        *(_config(one, variants[one["name"]], home) for one in configs),
        *(_endpoint(one, variants[one["config"]], by_name, home) for one in endpoints),
    ]


def _model(document: Document, home: Home) -> Model:
    container = {"ModelDataUrl": document["source"], "Environment": document["variables"]}
    request = {"ModelName": document["name"], "PrimaryContainer": container}
    key = Key(home, document["name"])
    return Model(key, document["created"], request, {BUNDLED: document["name"]})


def _config(document: Document, variants: Iterable[Variant], home: Home) -> EndpointConfig:
    given = [production_variant(variant) for variant in variants]
    request = {"EndpointConfigName": document["name"], "ProductionVariants": given}
    key = Key(home, document["name"])
    return EndpointConfig(key, document["created"], request, {BUNDLED: document["name"]})


def _endpoint(
    document: Document, variants: Iterable[Variant], models: Mapping[str, Document], home: Home
) -> Endpoint:
    deployed = []
    for variant in variants:
        model = models[variant.model]
        container = Container(url=model["source"], variables=model["variables"])
        deployed.append(Deployed(variant, container, model["directory"]))
    return Endpoint(
        Key(home, document["name"]),
        document["created"],
        document["modified"],
        Deployment(document["config"], tuple(deployed)),
        status=Status(document["status"]),
        failure_reason=document["failure_reason"],
    )
