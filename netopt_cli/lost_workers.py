"""What TensorFlow says when one of several workers is lost, as one clear error.

Workers meet in every collective operation. When one is killed, cut off or stopped for long, the
others get an error out of the middle of a compiled step, of whatever kind the transport has noticed
it by.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from netopt_cli.errors import LostWorkerError

_OF_THE_TRANSPORT = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)
_COORDINATION = "CoordinationService"
"""Is in the text of what the service that watches the workers reports, as an `InternalError`."""


@contextmanager
def noticing_lost_workers(workers: int) -> Iterator[None]:
    """Raises what happens within as an error of netopt's, where it is that a worker was lost.

    Args:
        workers: How many there are; one alone loses none.

    Raises:
        LostWorkerError: Another worker cannot be reached any more.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if workers == 1:
            raise
        if not isinstance(error, _OF_THE_TRANSPORT) and _COORDINATION not in str(error):
            raise
        raise LostWorkerError(
            f"one of the {workers} workers cannot be reached any more: it was ended, cut off or "
            "stopped for too long, and its own output may say why. Start all of them anew"
        ) from error
