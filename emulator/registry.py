"""What is kept of models, endpoint configurations and endpoints: documents in the ledger, and the
unpacked models beside it. Starts nothing.

An endpoint's documents come and go in one transaction, so that a crash leaves all or none.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from emulator import artifacts, endpoints
from emulator.endpoints import Endpoint, EndpointConfig, Model
from emulator.ledger import Ledger, unreadable

Sources = Mapping[str, tuple[Path, Mapping[str, str]]]
INITIALISED = "initialised"


class Registry:
    """The records of one server. `models` and `configs` are by name."""

    def __init__(self, ledger: Ledger, models_dir: Path, model_bytes: int) -> None:
        self.models: dict[str, Model] = {}
        self.configs: dict[str, EndpointConfig] = {}
        self._ledger, self._models_dir, self._model_bytes = ledger, models_dir, model_bytes
        # Copies have a thread of their own: measuring memory must not wait behind gigabytes.
        self._copier = ThreadPoolExecutor(1, "lukewarm-models")

    def load(self) -> list[Endpoint]:
        """Read everything back; the endpoints. Copies that a crash left unfinished are removed.

        Raises SetupError if a record cannot be read, and removes nothing then.
        """
        try:
            found = self._read()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"a record in it is damaged: {type(error).__name__} {error}"
            raise unreadable(self._ledger.path, reason) from error
        known = {Path(model.directory).name for model in self.models.values()}
        if self._models_dir.is_dir():
            for entry in self._models_dir.iterdir():
                if entry.name not in known:
                    shutil.rmtree(entry, ignore_errors=True)
        return found

    def _read(self) -> list[Endpoint]:
        read = {
            kind: [orjson.loads(document) for document in self._ledger.all(kind)]
            for kind in ("model", "endpoint-config", "endpoint")
        }
        self.models = {one["name"]: endpoints.model_from(one) for one in read["model"]}
        self.configs = {one["name"]: endpoints.config_from(one) for one in read["endpoint-config"]}
        for config in self.configs.values():
            for variant in config.variants:
                _ = self.models[variant.model]
        found = [endpoints.endpoint_from(one) for one in read["endpoint"]]
        for endpoint in found:
            _ = self.configs[endpoint.config]
        return found

    @property
    def initialised(self) -> bool:
        """Whether the endpoints of a first start have been made here."""
        return self._ledger.get_meta(INITIALISED) is not None

    def initialise(self) -> None:
        self._ledger.put_meta(INITIALISED, "yes")

    async def add(
        self, endpoint: Endpoint, config: EndpointConfig, sources: Sources, now: int
    ) -> None:
        """Copy the models in and keep all the records, or nothing.

        Raises SetupError for a model that cannot be used as it is.
        """
        made: list[Model] = []
        try:
            for name, (source, variables) in sources.items():
                directory = self._models_dir / uuid.uuid4().hex
                model = Model(name, str(directory), str(source), now, dict(variables))
                made.append(model)
                await self._in_thread(
                    artifacts.prepare, source, directory, self._model_bytes, variables
                )
            documents = [_document("model", model) for model in made]
            self._ledger.put(
                *documents, _document("endpoint-config", config), _document("endpoint", endpoint)
            )
        except BaseException:
            for model in made:
                await self._in_thread(shutil.rmtree, model.directory, True)
            raise
        self.models.update((model.name, model) for model in made)
        self.configs[config.name] = config

    def update(self, endpoint: Endpoint) -> None:
        """Keep the endpoint as it is now."""
        self._ledger.put(_document("endpoint", endpoint))

    async def remove(self, endpoint: Endpoint) -> None:
        """Forget the endpoint, its configuration, and the models that nothing else uses."""
        config = self.configs[endpoint.config]
        used = {
            variant.model
            for other in self.configs.values()
            if other.name != config.name
            for variant in other.variants
        }
        unused = {variant.model for variant in config.variants} - used
        self._ledger.delete(
            ("endpoint", endpoint.name),
            ("endpoint-config", config.name),
            *(("model", name) for name in unused),
        )
        del self.configs[config.name]
        for name in unused:
            model = self.models.pop(name)
            await self._in_thread(shutil.rmtree, model.directory, True)

    async def clear(self) -> None:
        """Forget everything, usage included."""
        self._ledger.reset()
        self.models.clear()
        self.configs.clear()
        await self._in_thread(shutil.rmtree, self._models_dir, True)

    def close(self) -> None:
        self._copier.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., object], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._copier, work, *arguments)


def _document(kind: str, record: Model | EndpointConfig | Endpoint) -> tuple[str, str, bytes]:
    return kind, record.name, orjson.dumps(endpoints.document(record))
