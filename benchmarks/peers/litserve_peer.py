"""The Fashion-MNIST model behind LitServe: `python litserve_peer.py PORT SETTINGS`.

SETTINGS is JSON: `workers_per_device`, `fast_queue`, `max_batch_size`, `batch_timeout`. Runs in the
peers' environment. JSON in and out is LitServe's own.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import litserve
import numpy as np


class FashionMnist(litserve.LitAPI):  # type: ignore[misc]
    """One image a request, as TensorFlow Serving takes it: `{"instances": [image]}`."""

    def setup(self, device: str) -> None:
        import tensorflow as tf

        self.model = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.function = self.model.signatures["serving_default"]
        self.constant = tf.constant
        self.predict(np.zeros((1, 28, 28), np.float32))

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        # No annotation: LitServe would have pydantic read the body by it.
        return np.asarray(request["instances"][0], np.float32)

    def predict(self, images: Any) -> Any:
        """One image, or a stack of them where LitServe makes batches."""
        stack = images if images.ndim == 3 else images[None]
        return self.function(image=self.constant(stack))["output_0"].numpy()

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"predictions": output.reshape(1, 10).tolist()}


def main() -> None:
    settings = json.loads(sys.argv[2])
    batches = {name: settings.pop(name) for name in [*settings] if "batch" in name}
    server = litserve.LitServer(FashionMnist(**batches), accelerator="cpu", **settings)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )


if __name__ == "__main__":
    main()
