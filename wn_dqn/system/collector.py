"""Python's garbage collector, out of the way of imports."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def imports_uncollected() -> Iterator[None]:
    """Import without the collector, which would walk all of torch's modules again and again (0.3 of 2.2 s).

    What lives at the end stays to the end of the process, and the collector leaves it alone.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once: frozen garbage is never collected
            gc.freeze()
        if was_on:
            gc.enable()
