"""What Keras and the random generators remember from one thing to the next."""

from __future__ import annotations

import collections
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from keras.src.backend.common import global_state

_NAMES = "object_name_uids"


@contextmanager
def names_and_draws_kept() -> Iterator[None]:
    """Leaves the counters of layer names and the global random generators as they were.

    So that what follows is the same whether or not what is inside was done: a run that goes on
    does not measure again what it has measured. Keras has no public name for its counters
    (`keras.backend.clear_session` sets all of them to zero, under which layers would get names that
    the network already has).
    """
    names = dict(global_state.get_global_attribute(_NAMES, default={}))
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAMES, collections.defaultdict(int, names))
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)
