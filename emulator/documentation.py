"""The FastAPI application and its `/docs`, which work without a network.

The invocation route is answered by `wire.py` before FastAPI sees it; it is described here so that
`/docs` and `/openapi.json` tell all that the server does.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from emulator import __doc__ as purpose
from emulator import __version__

_HEADERS = {
    "x-amzn-RequestId": "The request's id, as in the ledger.",
    "x-Amzn-Invoked-Production-Variant": "The variant that answered.",
    "x-emulator-cold-start": "`true` if the request waited for an environment to start.",
    "x-emulator-billed-ms": "Milliseconds billed for this call; 0 for a real-time endpoint.",
    "x-emulator-cost-usd": "What this call alone adds to the bill: duration and data.",
    "x-emulator-model-latency-us": "ModelLatency: the time in the container, CPU share included.",
    "x-emulator-overhead-latency-us": "OverheadLatency: everything else, a cold start included.",
    "x-emulator-setup-time-us": "ModelSetupTime: provisioning, runtime start and model load.",
}
_REQUEST_HEADERS = {
    "X-Amzn-SageMaker-Target-Variant": "The variant to invoke, whatever the weights.",
    "X-Amzn-SageMaker-Custom-Attributes": "Up to 1024 ASCII characters for the container.",
    "X-Amzn-SageMaker-Inference-Id": "Up to 64 characters, kept in the ledger.",
}
_ERRORS = {
    "400": "ValidationError, or ThrottlingException above MaxConcurrency",
    "403": "Not signed as it has to be, where authentication is on",
    "413": "A real-time body over the limit",
    "424": "ModelError: the container's own error, a timeout, a crash or too little memory",
    "429": "ModelNotReadyException: still being provisioned",
    "500": "InternalFailure: a fault of the emulator",
    "503": "ServiceUnavailable: the endpoint is being taken out of service",
    "530": "InternalDependencyException: the ledger could not be written",
}


_TYPES = ("application/json", "application/jsonlines", "text/csv", "application/x-npy",
          "application/x-npz")  # fmt: skip
REST_ERRORS = {
    400: "Refused: a rule of AWS's control plane, a quota, or a model that cannot be used",
    401: "Neither signed nor with the token, where authentication is on",
    403: "Not signed as it has to be, or sent by a web page from elsewhere",
    404: "There is no endpoint of that name",
    413: "The body is too large",
    422: "The request has not the right form",
    503: "The ledger cannot be used",
}


def api() -> FastAPI:
    """An empty application with the documentation pages."""
    application = FastAPIOffline(title="Lukewarm", description=purpose or "", version=__version__)
    generate = application.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        for suffix, operation in (("", _invocation()), ("-response-stream", _streaming())):
            schema["paths"].setdefault(
                f"/endpoints/{{name}}/invocations{suffix}", {"post": operation}
            )
        return schema

    application.openapi = openapi  # type: ignore[method-assign]
    return application


def _invocation() -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    parameters += [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in _REQUEST_HEADERS.items()
    ]
    answers: dict[str, Any] = {
        status: {"description": text, "content": _content("text/plain", "application/json")}
        for status, text in _ERRORS.items()
    }
    answers["200"] = {
        "description": "The container's answer, byte for byte.",
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        },
        "content": _content(*_TYPES, "*/*"),
    }
    example = {"instances": [[[0.0] * 28] * 28]}
    return {
        "tags": ["sagemaker-runtime"],
        "summary": "InvokeEndpoint",
        "operationId": "InvokeEndpoint",
        "parameters": parameters,
        "requestBody": {
            "content": _content(*_TYPES) | {"application/json": {"schema": {}, "example": example}}
        },
        "responses": answers,
    }


def _streaming() -> dict[str, Any]:
    """As InvokeEndpoint, but that the answer is events, and its type is in a header."""
    operation = _invocation()
    name = "InvokeEndpointWithResponseStream"
    operation |= {"summary": name, "operationId": name}
    for parameter in operation["parameters"]:
        if parameter["name"].lower() == "accept":
            parameter["name"] = "X-Amzn-SageMaker-Accept"
    operation["responses"]["200"] = {
        "description": "The answer as PayloadPart events, or ModelStreamError at their end.",
        "headers": {
            "X-Amzn-SageMaker-Content-Type": {
                "description": "The container's content type.",
                "schema": {"type": "string"},
            }
        },
        "content": _content("application/vnd.amazon.eventstream"),
    }
    return operation


def _content(*types: str) -> dict[str, Any]:
    return {one: {"schema": {} if one.endswith("json") else {"type": "string"}} for one in types}
