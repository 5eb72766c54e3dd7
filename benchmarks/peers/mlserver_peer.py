"""The Fashion-MNIST model as a runtime of MLServer; `model-settings.json` names it.

Runs in the peers' environment. JSON in and out is MLServer's own.
"""

from __future__ import annotations

import os

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class FashionMnist(MLModel):  # type: ignore[misc]
    """Input `image`, FP32 (n, 28, 28); output `output_0`, FP32 (n, 10)."""

    async def load(self) -> bool:
        import tensorflow as tf

        self.loaded = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.function = self.loaded.signatures["serving_default"]
        self.constant = tf.constant
        self.function(image=tf.zeros((1, 28, 28)))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        output = self.function(image=self.constant(images))["output_0"].numpy()
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output_0", output)]
        )
