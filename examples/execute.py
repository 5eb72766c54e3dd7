"""Executes a notebook: python execute.py NOTEBOOK TARGET. Run by the kernel's own Python.

The kernel works in the notebook's folder. A cell that fails is shown with its error, and the exit
code is 1.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

CELL_S = 600


def main(source: Path, target: Path) -> int:
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_S,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # it warns of the ports of its own loopback
        resources={"metadata": {"path": str(source.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        # The SageMaker SDK takes tracebacks over, and leaves none for the notebook.
        print(f"{error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    # Whatever Python it was executed with: the notebook is the same with any.
    notebook.metadata["language_info"] = {"name": "python"}
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
