"""Trains a classifier of Fashion-MNIST, as a script for SageMaker's TensorFlow estimator.

It runs by itself, too: python train.py --train FOLDER --model-dir FOLDER --epochs 1
"""

import argparse
import gzip
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

IMAGE_HEADER, LABEL_HEADER = 16, 8  # bytes before the first value


def main() -> None:
    """Train, print the metrics of each epoch, and save the model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--train", type=Path, default=os.environ.get("SM_CHANNEL_TRAINING"))
    parser.add_argument("--model-dir", type=Path, default=os.environ.get("SM_MODEL_DIR"))
    parser.add_argument("--output", type=Path, default=os.environ.get("SM_OUTPUT_DATA_DIR"))
    options, _ = parser.parse_known_args()  # the SDK adds --model_dir, an address on S3

    keras.utils.set_random_seed(7)
    model = network()
    optimizer = keras.optimizers.Adam(options.learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        *read(options.train, "train"),
        validation_data=read(options.train, "t10k"),
        epochs=options.epochs,
        batch_size=options.batch_size,
        verbose=2,  # a line for each epoch, in which SageMaker looks for metrics
    )
    model.export(options.model_dir / "1", verbose=False)  # TensorFlow Serving wants a number
    if options.output:
        (options.output / "history.json").write_text(json.dumps(history.history))


def network() -> keras.Model:
    """A small convolutional network: float (n, 28, 28) from 0 to 1, to ten probabilities."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28), name="image"),
            layers.Reshape((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def read(folder: Path, part: str) -> tuple[Any, Any]:
    """The images, float32 (n, 28, 28), and labels, (n,), of the part `train` or `t10k`."""
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=IMAGE_HEADER).reshape(-1, 28, 28)
    return images.astype(np.float32) / 255, np.frombuffer(labels, np.uint8, offset=LABEL_HEADER)


if __name__ == "__main__":
    main()
