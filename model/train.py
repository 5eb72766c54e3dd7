"""Train the Fashion-MNIST classifier and save it as SageMaker expects: `python -m model.train`.

It writes three things below the model directory: `1/`, a SavedModel for TensorFlow Serving;
`fashion-mnist.keras`, the same model in Keras's own format; `class_names.json`. The model takes
float32 (n, 28, 28) with pixels already divided by 255, and gives ten probabilities for each image.
With `--litert` it is converted for LiteRT as well, outside of the model directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model import convert, data
from model.loading import quiet_import

if TYPE_CHECKING:
    import keras

LEARNING_RATE = 2e-3
VERSION = "1"  # TensorFlow Serving finds only directories that are named by a number


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> float:
    """Train, save, print and return the accuracy on the test images.

    Ends the process with status 2 and one sentence for bad arguments or missing data.
    """
    parser = arguments_parser(environ)
    options = parser.parse_args(arguments)
    if options.model_dir is None:
        parser.error("say where the model goes: --model-dir DIRECTORY, or set SM_MODEL_DIR.")
    try:
        dataset = data.load(environ)
    except data.DataError as error:
        parser.error(str(error))
    return train(dataset, options)


def arguments_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model.train", description=__doc__)
    parser.add_argument("--epochs", type=positive, default=10, help="default: %(default)s")
    parser.add_argument("--batch-size", type=positive, default=128, help="default: %(default)s")
    parser.add_argument("--seed", type=seed, default=7, help="default: %(default)s")
    parser.add_argument(
        "--images", type=positive, default=60_000, help="train on the first so many only"
    )
    parser.add_argument(
        "--model-dir",
        type=Path,
        default=environ.get("SM_MODEL_DIR") or None,
        help="where to save; default: the environment's SM_MODEL_DIR",
    )
    parser.add_argument("--litert", type=Path, help="where the conversion for LiteRT goes")
    return parser


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more.")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4294967295.")
    return int(text)


def train(dataset: data.Dataset, options: argparse.Namespace) -> float:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_import():
        import keras

    keras.utils.set_random_seed(options.seed)
    x, y = scaled(dataset.x_train[: options.images]), dataset.y_train[: options.images]
    model = network()
    # The rate falls to zero: at a constant one, accuracy still swings by a point between epochs.
    steps = -(-len(x) // options.batch_size) * options.epochs
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        x,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    accuracy = float(model.evaluate(scaled(dataset.x_test), dataset.y_test, verbose=0)[1])
    save(model, options.model_dir)
    print(f"test accuracy: {accuracy:.4f}; saved in {options.model_dir}")
    if options.litert:
        print(convert.convert(options.model_dir, options.litert)["note"])
    return accuracy


def network() -> keras.Model:
    """The untrained network: 101,770 weights."""
    import keras

    return keras.Sequential(
        [
            keras.Input((28, 28), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(len(data.CLASS_NAMES), activation="softmax"),
        ],
        name="fashion_mnist",
    )


def scaled(images: data.Bytes) -> npt.NDArray[np.float32]:
    """Pixels from 0..255 to 0..1, as the model takes them."""
    return images.astype(np.float32) / np.float32(255)


def save(trained: keras.Model, directory: Path) -> None:
    """Write the SavedModel, the .keras file and the class names, replacing what was there.

    The optimizer's state, two thirds of the size, is left out: it serves no prediction.
    """
    model = network()
    model.set_weights(trained.get_weights())
    directory.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / VERSION, ignore_errors=True)
    export(model, directory / VERSION)
    model.save(directory / "fashion-mnist.keras")
    names = json.dumps(list(data.CLASS_NAMES), indent=2)
    (directory / "class_names.json").write_text(names + "\n", encoding="utf-8")


def export(model: keras.Model, directory: Path) -> None:
    """Write a SavedModel with the signature `serving_default` and nothing else.

    Keras's own export adds a second endpoint of the same function and tracks every weight twice,
    which makes the files twice as large and the load a tenth slower.
    """
    import tensorflow as tf

    def answer(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"output_0": model(image, training=False)}

    module = tf.Module()
    module.weights = model.variables  # what the function uses has to be tracked
    image = tf.TensorSpec((None, 28, 28), tf.float32, name="image")
    served = tf.function(answer, input_signature=[image], autograph=False)
    tf.saved_model.save(module, str(directory), signatures={"serving_default": served})


if __name__ == "__main__":
    main()
