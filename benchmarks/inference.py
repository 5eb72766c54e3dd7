"""One call of the model: the compiled concrete function against Keras's `predict`."""

from __future__ import annotations

import json

from benchmarks.measure import ROOT, Figure, python

_CODE = """
import json, time
from pathlib import Path
from statistics import median
import numpy as np
from model import inference

folder, body = Path({folder!r}), Path({body!r}).read_bytes()
container = inference.load(folder, {{}})
container.warm_up()
import keras
model = keras.models.load_model(folder / "fashion-mnist.keras")
image = np.array(json.loads(body)["instances"], np.float32)

def typical(work, runs):
    work()
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return median(taken)

request = inference.Request(body, "application/json", "application/json", "")
print(json.dumps([
    typical(lambda: container.handle(request), 500),
    typical(lambda: model.predict(image, verbose=0), 30),
]))
"""


def figures() -> list[Figure]:
    """JSON in and out included on our side, not on that of `predict`."""
    folder = ROOT / "model" / "artifacts" / "fashion-mnist"
    body = ROOT / "model" / "artifacts" / "sneaker.json"
    code = _CODE.format(folder=str(folder), body=str(body))
    ours, predict = json.loads(python(code).splitlines()[-1])
    return [
        Figure("one image through the container, JSON in and out", ours * 1000, "ms"),
        Figure("one image through model.predict", predict * 1000, "ms"),
        Figure("model.predict over the container", predict / ours, "times", 10, "above"),
    ]
