"""What is kept of models, endpoint configurations, endpoints and training jobs: documents in the
ledger, read back at the start. Starts nothing.

Records that belong together come and go in one transaction, so that a crash leaves all or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from emulator import earlier, endpoints, jobs
from emulator.address import Home, Key
from emulator.endpoints import Endpoint, EndpointConfig, Model, Tags
from emulator.errors import NotFound, ValidationException
from emulator.faults import arn
from emulator.jobs import TrainingJob
from emulator.ledger import Ledger, unreadable

INITIALISED = "initialised"
MAX_TAGS = 50
Record = endpoints.Record | TrainingJob
R = TypeVar("R", Model, EndpointConfig, Endpoint, TrainingJob)

# Of each kind: how ARNs call it, how sentences do, and how its documents are read.
KINDS: Mapping[type[Record], tuple[str, str, Callable[[Mapping[str, Any]], Record]]] = {
    Model: ("model", "model", endpoints.model_from),
    EndpointConfig: ("endpoint-config", "endpoint configuration", endpoints.config_from),
    Endpoint: ("endpoint", "endpoint", endpoints.endpoint_from),
    TrainingJob: ("training-job", "training job", jobs.made),
}


class Registry:
    """The records of one server."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records: dict[type[Record], dict[Key, Any]] = {kind: {} for kind in KINDS}
        self._by_arn: dict[str, tuple[type[Record], Key]] = {}

    def load(self, home: Home) -> None:
        """Read everything back; what an earlier version kept belongs to `home` from now on. Raises
        SetupError if a record cannot be read."""
        try:
            found = [
                list(map(orjson.loads, self._ledger.all(name))) for name, _, _ in KINDS.values()
            ]
            self._take_over([list(filter(earlier.is_earlier, each)) for each in found], home)
            for documents, (_, _, read) in zip(found, KINDS.values(), strict=True):
                for document in documents:
                    if not earlier.is_earlier(document):
                        self._keep(read(document))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"a record in it is damaged: {type(error).__name__} {error}"
            raise unreadable(self._ledger.path, reason) from error

    def _take_over(self, documents: list[list[dict[str, Any]]], home: Home) -> None:
        if any(documents):
            models, configs, served, _ = documents
            self.put(*earlier.records(models, configs, served, home))
            kinds = [name for name, _, _ in KINDS.values()]
            self._ledger.delete(
                *((kind, one["name"]) for kind, each in zip(kinds, documents, strict=True)
                  for one in each)
            )  # fmt: skip

    @property
    def initialised(self) -> bool:
        """Whether the endpoints of a first start have been made here."""
        return self._ledger.get_meta(INITIALISED) is not None

    def initialise(self) -> None:
        self._ledger.put_meta(INITIALISED, "yes")

    def all(self, kind: type[R]) -> list[R]:
        """All of a kind, oldest first."""
        return list(self._records[kind].values())

    def of(self, kind: type[R], home: Home) -> Iterator[R]:
        """Those of a kind that live there, oldest first."""
        return (record for record in self._records[kind].values() if record.key.home == home)

    def get(self, kind: type[R], key: Key) -> R | None:
        found: R | None = self._records[kind].get(key)
        return found

    def find(self, kind: type[R], key: Key) -> R:
        """Raises NotFound in AWS's words."""
        found = self.get(kind, key)
        if found is None:
            raise NotFound(f'Could not find {KINDS[kind][1]} "{arn_of(kind, key)}".')
        return found

    def check_new(self, kind: type[Record], key: Key) -> None:
        """Raises ValidationException, in AWS's words, if there is one whose ARN is the same."""
        if arn_of(kind, key) in self._by_arn:
            raise exists(kind, key)

    def put(self, *records: Record) -> None:
        """Keep records as they are now, all of them or none. Raises sqlite3.Error."""
        self._ledger.put(*map(_document, records))
        for record in records:
            self._keep(record)

    def remove(self, *records: Record) -> None:
        """Forget records, all of them or none. Raises sqlite3.Error."""
        self._ledger.delete(*(_place(record) for record in records))
        for record in records:
            self._records[type(record)].pop(record.key, None)
            self._by_arn.pop(arn_of(type(record), record.key), None)

    def clear(self) -> None:
        """Forget everything, usage included."""
        self._ledger.reset()
        for known in self._records.values():
            known.clear()
        self._by_arn.clear()

    def tags(self, resource: str) -> Tags | None:
        """The tags of what has this ARN; None if nothing here has."""
        record = self._by_resource(resource)
        return None if record is None else record.tags

    def tag(self, resource: str, added: Tags, dropped: frozenset[str] = frozenset()) -> Tags:
        """Add tags to what has this ARN and drop others; the tags it has then. Raises NotFound,
        or ValidationException for more tags than there may be."""
        record = self._by_resource(resource)
        if record is None:
            raise NotFound(f'Could not find resource "{resource}".')
        tags = {k: v for k, v in {**record.tags, **added}.items() if k not in dropped}
        if len(tags) > MAX_TAGS:
            raise ValidationException(
                f'The resource "{resource}" would have {len(tags)} tags; it has at most {MAX_TAGS}.'
            )
        self.put(replace(record, tags=tags))
        return tags

    def _by_resource(self, resource: str) -> Record | None:
        kind, key = self._by_arn.get(resource.lower(), (Model, None))
        if key is None:
            return None
        found: Record = self._records[kind][key]
        return found

    def _keep(self, record: Record) -> None:
        self._records[type(record)][record.key] = record
        self._by_arn[arn_of(type(record), record.key)] = (type(record), record.key)


def arn_of(kind: type[Record], key: Key) -> str:
    """The ARN of a record; its name is in lower case in it."""
    return arn(key, KINDS[kind][0])


def exists(kind: type[Record], key: Key) -> ValidationException:
    """What AWS says to a name that is taken."""
    return ValidationException(
        f'Cannot create already existing {KINDS[kind][1]} "{arn_of(kind, key)}".'
    )


def _place(record: Record) -> tuple[str, str]:
    return KINDS[type(record)][0], "/".join((*record.key.home, record.key.name))


def _document(record: Record) -> tuple[str, str, bytes]:
    return *_place(record), orjson.dumps(endpoints.document(record))
