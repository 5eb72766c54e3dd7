"""Takes pictures as they are and answers with names, in SageMaker's TensorFlow Serving container.

A picture is 28 by 28 bytes, 0 black to 255 white, in NumPy's format: `application/x-npy`.
"""

import io
import json
from typing import Any

import numpy as np

NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def input_handler(data: Any, context: Any) -> str:
    """The request for the model: pixels from 0 to 1, as JSON."""
    if context.request_content_type == "application/json":
        return str(data.read().decode())
    if context.request_content_type != "application/x-npy":
        raise ValueError(f"{context.request_content_type} is neither JSON nor application/x-npy.")
    pixels = np.load(io.BytesIO(data.read()), allow_pickle=False)
    return json.dumps({"instances": (pixels.reshape(-1, 28, 28) / 255).tolist()})


def output_handler(response: Any, context: Any) -> tuple[str, str]:
    """The likeliest class of each picture, by name, and how sure the model is."""
    if response.status_code != 200:
        raise ValueError(response.content.decode())
    answers = [
        {"name": NAMES[np.argmax(scores)], "probability": max(scores)}
        for scores in json.loads(response.content)["predictions"]
    ]
    return json.dumps({"answers": answers}), "application/json"
