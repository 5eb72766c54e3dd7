"""Pages of a log stream in moto whose oldest events are dropped: a token is the number of an event
since the stream's first one, as in AWS, and not its place in what is left. Nothing is fed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PAGE = 10_000  # events, where the caller names no limit; AWS's


def drop(stream: Any, kept: int, unseen: int) -> None:
    """Keep the newest `kept` events of moto's stream, to which `unseen` ones more would have been
    put before the last."""
    excess = max(0, len(stream.events) - kept)
    del stream.events[:excess]
    stream.dropped = _dropped(stream) + excess + unseen


def page(
    stream: Any,
    start_time: int | None,
    end_time: int | None,
    limit: int | None,
    next_token: str | None,
    start_from_head: bool | None,
) -> tuple[list[dict[str, Any]], str, str]:
    """GetLogEvents, in place of moto's method of the same signature: the events, the token of the
    page before and that of the page behind, which stays as it is at either end. Raises moto's
    InvalidParameterException."""
    events = sorted(stream.events, key=lambda event: int(event.timestamp))
    found = [
        (number, event)
        for number, event in enumerate(events, _dropped(stream))
        if (start_time is None or event.timestamp >= start_time)
        and (end_time is None or event.timestamp <= end_time)
    ]
    limit = limit or PAGE
    if next_token is None:
        first = -1
        found = found[:limit] if start_from_head else found[-limit:]
    else:
        forward, first = _place(next_token)
        if forward:
            found = [one for one in found if one[0] > first][:limit]
        else:
            found = [one for one in found if one[0] < first][-limit:]
    numbers = [number for number, _ in found] or [first]
    return [event.to_response_dict() for _, event in found], *_tokens(numbers)


def _dropped(stream: Any) -> int:
    return getattr(stream, "dropped", 0)


def _place(token: str) -> tuple[bool, int]:
    """Whether forward, and the number of the event beside the page."""
    from moto.logs.exceptions import InvalidParameterException

    direction, _, number = token.partition("/")
    try:
        if direction in ("f", "b"):
            return direction == "f", int(number)
    except ValueError:
        pass
    raise InvalidParameterException("The specified nextToken is invalid.")


def _tokens(numbers: Sequence[int]) -> tuple[str, str]:
    return f"b/{numbers[0]:056d}", f"f/{numbers[-1]:056d}"
