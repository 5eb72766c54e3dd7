"""The compiled form of a signature: one program for each of a few sizes of batch, kept only where
it gives the same rows faster. What takes long to compile is paid for before an instance is in
service, so only an always-warm persona asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from model.batching import alike, padded, samples
from model.signatures import Array, Call, Signature, Tensor

# A compiled call saves the runtime's own tenth of a millisecond or two. Where a call takes longer
# than this, that is no gain worth a compiler's memory and seconds.
WORTH_S = 0.005
BUDGET_S = 5.0  # after which no further size is compiled
_RUNS = 10


def compiled(signature: Signature, most: int) -> Signature:
    """The signature with compiled programs for 1, 2, 4, ... rows up to `most`, where it has a
    compiler, every other axis is fixed, and the programs are faster and right."""
    if signature.compiled is None or not all(map(fixed, signature.inputs.values())):
        return signature
    begin = time.perf_counter()
    sizes: dict[int, Call] = {}
    size = 1
    while size <= most and time.perf_counter() - begin < BUDGET_S:
        program = faster(signature, size)
        if program is None:
            break
        sizes[size] = program
        size *= 2
    return replace(signature, call=padded(sizes, signature.call)) if sizes else signature


def fixed(tensor: Tensor) -> bool:
    """Whether only the first axis is free, as a program of one size needs it."""
    return tensor.rows and None not in (tensor.shape or ())[1:] and tensor.dtype != object


def faster(signature: Signature, size: int) -> Call | None:
    """The program for batches of `size`; None if it is wrong, or no gain."""
    assert signature.compiled is not None
    arrays = samples(signature, size, seed=size)
    try:
        before = shortest_s(signature.call, arrays)
        if before > WORTH_S:
            return None
        program = signature.compiled(size)
        if not alike(signature.call(arrays), program(arrays)):
            return None
    except Exception:  # noqa: BLE001 - whatever a compiler cannot do is done without it
        return None
    return program if shortest_s(program, arrays) < before else None


def shortest_s(call: Call, arrays: Mapping[str, Array]) -> float:
    """The seconds of the quickest of a few calls after a first one: what others do to the machine
    meanwhile only adds."""
    call(arrays)
    taken = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        call(arrays)
        taken.append(time.perf_counter() - begin)
    return min(taken)
