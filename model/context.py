"""What a function of a script is told of its request if it takes one argument more: an object with
the names that the model server behind the public inference toolkit gives it."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from typing import Any

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class Context:
    """The request's headers, and what the answer is to have. One request a call, so the index that
    these methods take is always 0."""

    def __init__(self, model_dir: str, headers: Mapping[str, str]) -> None:
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": None,
            "batch_size": 1,
        }
        self.manifest: dict[str, Any] = {}
        self.status = 200
        self._asked, self.answer = Message(), Message()  # their look-up ignores case
        for name, value in headers.items():
            self._asked[name] = value

    @property
    def request_processor(self) -> list[Context]:
        """The model server has one for each request of a batch."""
        return [self]

    def get_request_properties(self) -> dict[str, str]:
        return dict(self._asked.items())

    def get_all_request_header(self, idx: int = 0) -> dict[str, str]:
        return dict(self._asked.items())

    def get_request_header(self, idx: int, key: str, exp: bool = False) -> str | None:
        return self._asked.get(key)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "Content-Type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.answer.get("Content-Type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        del self.answer[key]
        self.answer[key] = value

    def get_response_headers(self, idx: int = 0) -> dict[str, str]:
        return dict(self.answer.items())

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.status = code
