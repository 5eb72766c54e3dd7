"""CloudWatch Logs of endpoints and training jobs: brings the logbook's lines to whatever answers
for Logs, when somebody asks. `MotoLogs` is for moto in this process, which it imports; `RemoteLogs`
for another emulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from emulator import logpages
from emulator.address import Home
from emulator.logbook import TRAINING, Event, Logbook, Position, Stream
from emulator.quirks import mend

GROUPS = "/aws/sagemaker"
EVENTS = 20_000  # of a stream in moto's memory; the newest
BATCH = 1000  # events of one PutLogEvents
BATCH_BYTES = 900_000


class MotoLogs:
    """moto's Logs with our streams in them."""

    def __init__(self, book: Logbook) -> None:
        from moto.logs import models

        mend("logs")
        models.LogStream.get_log_events = logpages.page
        self._book, self._models = book, models
        self._read: dict[tuple[Home, Stream], Position] = {}

    def feed(self, home: Home) -> None:
        """Bring moto up to date, and drop what was deleted on either side. In the logbook's
        thread."""
        backend = self._models.logs_backends[home.account][home.region]
        self._forget_deleted(home, backend)
        there = self._book.streams(home)
        for stream in there:
            since = self._read.get((home, stream), Position())
            events, self._read[home, stream] = self._book.read(home, stream, since)
            self._put(backend, stream, events)
        for place in [one for one in self._read if one[0] == home and one[1] not in there]:
            del self._read[place]
            group = backend.groups.get(group_of(place[1]))
            if group:
                group.streams.pop(name_of(place[1]), None)

    def _forget_deleted(self, home: Home, backend: Any) -> None:
        """What a client has deleted in moto is not to come back."""
        for place in [one for one in self._read if one[0] == home]:
            stream = place[1]
            group = backend.groups.get(group_of(stream))
            if group is None or name_of(stream) not in group.streams:
                del self._read[place]
                self._book.delete(home, stream)

    def _put(self, backend: Any, stream: Stream, events: Sequence[Event]) -> None:
        backend.ensure_log_group(group_of(stream))
        group = backend.groups[group_of(stream)]
        name = name_of(stream)
        if name not in group.streams:
            group.create_log_stream(name)
            if events:
                began = datetime.fromtimestamp(events[0].at_ms / 1000, UTC).replace(tzinfo=None)
                group.streams[name].creation_time = began
                group.creation_time = min(group.creation_time, began)
        if events:
            newest = events[-EVENTS:]
            group.put_log_events(name, [_entry(one) for one in newest])
            logpages.drop(group.streams[name], EVENTS, len(events) - len(newest))


class RemoteLogs:
    """Another emulator's Logs, told of our lines through its own interface."""

    def __init__(self, book: Logbook, client: Any) -> None:
        """`client` makes boto3's client of Logs for a home."""
        self._book, self._client = book, client
        self._read: dict[tuple[Home, Stream], Position] = {}

    def feed(self, home: Home) -> None:
        """Send what is new. In the logbook's thread. Raises botocore's errors."""
        if not (streams := self._book.streams(home)):
            return
        client = self._client(home)
        for stream in streams:
            since = self._read.get((home, stream))
            events, position = self._book.read(home, stream, since or Position())
            if since is None:  # the first time in this server's life
                last_ms = self._last(client, stream)
                events = [one for one in events if one.at_ms > last_ms]
            for batch in _batches(events):
                client.put_log_events(
                    logGroupName=group_of(stream),
                    logStreamName=name_of(stream),
                    logEvents=[_entry(one) for one in batch],
                )
            self._read[home, stream] = position

    @staticmethod
    def _last(client: Any, stream: Stream) -> int:
        """When the last line was printed that is there already; makes group and stream."""
        group, name = group_of(stream), name_of(stream)
        with suppress(client.exceptions.ResourceAlreadyExistsException):
            client.create_log_group(logGroupName=group)
        try:
            client.create_log_stream(logGroupName=group, logStreamName=name)
        except client.exceptions.ResourceAlreadyExistsException:
            asked = {"logGroupName": group, "logStreamNamePrefix": name}
            (found, *_) = client.describe_log_streams(**asked)["logStreams"]
            return int(found.get("lastEventTimestamp", -1))
        return -1


def group_of(stream: Stream) -> str:
    return GROUPS + (TRAINING if stream.endpoint == TRAINING else f"/Endpoints/{stream.endpoint}")


def name_of(stream: Stream) -> str:
    return f"{stream.variant}/{stream.environment}"


def _entry(event: Event) -> dict[str, Any]:
    # An event has at least one character; a blank line is one, too.
    return {"timestamp": event.at_ms, "message": event.line or " "}


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    size = 0
    for event in sorted(events, key=lambda one: one.at_ms):
        size += len(event.line.encode()) + 26
        if batch and (len(batch) >= BATCH or size > BATCH_BYTES):
            yield batch
            batch, size = [], len(event.line.encode()) + 26
        batch.append(event)
    if batch:
        yield batch
