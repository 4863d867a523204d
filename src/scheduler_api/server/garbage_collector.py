"""The garbage collector's settings for a server process."""

import gc
from typing import Final

THRESHOLD_0: Final = 20_000  # new objects until a collection; Python's default: 700


def tune_garbage_collector() -> None:
    """Exclude all loaded modules from collections, and collect less often.

    A burst creates thousands of objects that reference counting frees. With the defaults, the
    collector walks through them, and through all modules, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD_0, 20, 20)
