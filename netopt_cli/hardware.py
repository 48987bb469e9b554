"""What the targets share: threads, devices and the clock of the exported file.

TensorFlow fixes threads and devices when it is first used, so these come before anything else, and
a later run of the same process can only ask for the same again.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from typing import Annotated, Literal

import tensorflow as tf
from pydantic import Field

from netopt_cli.errors import TargetError

Count = Annotated[int, Field(ge=1)]
TimingDevice = Literal["cpu", "cpu_reference"]


def prepare_host(threads: int | None) -> None:
    """Sets the host up for training: memory that is kept, and TensorFlow's number of threads.

    Args:
        threads: None leaves it to TensorFlow (all cores).

    Raises:
        TargetError: TensorFlow is already running with another number.
    """
    _keep_freed_memory()
    wanted = threads or 0
    if tf.config.threading.get_intra_op_parallelism_threads() == wanted:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(wanted)
        tf.config.threading.set_inter_op_parallelism_threads(wanted)
    except RuntimeError as error:
        raise TargetError(
            "target.threads cannot change within one process: start another netopt, for instance "
            f"by a shell loop in place of -m. Received: target.threads={threads}"
        ) from error


def _keep_freed_memory() -> None:
    """Lets glibc keep what is freed instead of giving it back to the system.

    A training step frees tensors of megabytes and asks for them again in the next step; without
    this, their pages may be mapped and zeroed anew each time. Other C libraries are left as they
    are. Source: mallopt(3).
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**25)
    mallopt(arena_max, 1)


@cache
def one_device(device: str) -> tf.distribute.Strategy:
    """The strategy of one device; one object a process, since variables belong to theirs."""
    return tf.distribute.OneDeviceStrategy(device)


def gpus() -> list[tf.config.PhysicalDevice]:
    return tf.config.list_physical_devices("GPU")


def split_cpu(parts: int) -> list[str]:
    """Makes `parts` logical CPU devices of the one there is, and returns their names.

    Raises:
        TargetError: TensorFlow is already running with another number.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(parts)]
        )
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) != parts:
            raise TargetError(
                "target.replicas of the CPU cannot change within one process: start another "
                f"netopt. Received: target.replicas={parts}"
            ) from error
    return [f"CPU:{index}" for index in range(parts)]
