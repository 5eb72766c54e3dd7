"""Which container's rules a model is served by: TensorFlow Serving's, or those of a script with
`model_fn`. Looks at an archive's files and at a script's text; runs nothing of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from emulator.errors import SetupError

PROGRAM_VARIABLE = "SAGEMAKER_PROGRAM"  # the inference toolkit's own
DEFAULT_PROGRAM = "inference.py"
SCRIPT_BYTES = 256 << 10  # to parse one takes some hundred times its size
CONTRACT = frozenset({"model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn"})
HANDLERS = frozenset({"handler", "input_handler"})


@dataclass(frozen=True, slots=True)
class Contract:
    """How a model is served: by the script `code/<program>`, or by TensorFlow's container where
    `program` is empty."""

    program: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A script of an archive: the names that it defines, or what is wrong with it."""

    program: str
    names: frozenset[str] = frozenset()
    fault: str = ""

    @property
    def usable(self) -> bool:
        return "model_fn" in self.names

    @property
    def lack(self) -> str:
        """What it lacks to be served, as the end of a sentence."""
        if self.fault:
            return self.fault
        if self.names & CONTRACT:
            some = ", ".join(sorted(self.names & CONTRACT))
            return f"code/{self.program} defines {some} but no model_fn, which loads the model"
        return f"code/{self.program} does not define model_fn, which loads the model"


def contract(model_dir: Path, image: str, variables: Mapping[str, str]) -> Contract:
    """What serves the unpacked archive in `model_dir`.

    `image` is the name of the container's image, empty if none was given: then the archive alone
    decides. `variables` is the container's environment. Reads some files, so that it may take
    milliseconds. Raises SetupError with one sentence that names what is missing.
    """
    if image and is_tensorflow(image):
        return Contract()
    found = script(model_dir, variables)
    if image:
        if not found.usable:
            raise SetupError(
                f"The image {image} is not one of TensorFlow Serving, so the archive has to have a "
                f"script, and {found.lack}."
            )
        return Contract(found.program)
    # A script with handlers stands around TensorFlow; one with model_fn loads the model itself.
    if has_tensorflow(model_dir) and (found.names & HANDLERS or not found.usable):
        return Contract()
    if not found.usable:
        raise SetupError(
            f"The archive has neither a SavedModel nor a .keras file, and {found.lack}."
        )
    return Contract(found.program)


def is_tensorflow(image: str) -> bool:
    """Whether the image is one of TensorFlow Serving, by the name of its repository. Those of
    Hugging Face, whatever framework is in them, have the toolkit's contract."""
    repository = image.split("@")[0].rsplit("/", 1)[-1].split(":")[0].lower()
    serves = "serving" in repository or "inference" in repository
    return "tensorflow" in repository and serves and "huggingface" not in repository


def has_tensorflow(model_dir: Path) -> bool:
    """Whether there is a model that TensorFlow's container serves."""
    return any(model_dir.glob("*.keras")) or any(model_dir.rglob("saved_model.pb"))


def script(model_dir: Path, variables: Mapping[str, str]) -> Script:
    """The archive's script: the file in `code/` that SAGEMAKER_PROGRAM names, or inference.py."""
    named = variables.get(PROGRAM_VARIABLE) or DEFAULT_PROGRAM
    program = named if named.endswith(".py") else f"{named}.py"
    place = PurePosixPath(program)
    if place.is_absolute() or ".." in place.parts:
        fault = f"{PROGRAM_VARIABLE} is {named!r}, which is no file in code/"
        return Script(program, fault=fault)
    file = model_dir / "code" / program
    if not file.is_file():
        return Script(program, fault=f"there is no code/{program} with model_fn in it")
    try:
        if file.stat().st_size > SCRIPT_BYTES:
            return Script(program, fault=f"code/{program} has more than {SCRIPT_BYTES} bytes")
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Script(program, fault=f"code/{program} is no Python that can be read ({error})")
    return Script(program, frozenset(_defined(tree.body)))


def _defined(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module binds when it is run, also under `if` and `try`."""
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (one.id for one in targets if isinstance(one, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.ImportFrom(names=names):
                for alias in names:  # a star may bring any of them
                    yield from CONTRACT if alias.name == "*" else {alias.asname or alias.name}
            case ast.If() | ast.Try() | ast.With():
                for inner in ("body", "orelse", "finalbody"):
                    yield from _defined(getattr(statement, inner, ()))
                for handler in getattr(statement, "handlers", ()):
                    yield from _defined(handler.body)
