"""One hint to the C library, given once when fnn is imported: memory that was freed will soon be wanted again.

A step makes arrays of the sizes of the step before it. Left alone, glibc gives large ones back to the system when they
are freed, and each step then pays for every page of 4 KB anew: 2,700 page faults and a fifth of the time for a small
transformer block. glibc learns better when it sees a large block freed: from then on it keeps blocks up to that size
(and up to twice as much free memory at the end of its heap) for reuse.
"""

from __future__ import annotations

import numpy as np

LARGE = 2**25 - 2**16
"""A little below 32 MB, the largest block from which glibc learns."""


def keep_freed_memory() -> None:
    """Allocates and frees one large block that is never touched: microseconds, and no memory.

    With other C libraries this does nothing. (`mallopt` could say the same, but only for the whole process and for
    good; what is learnt this way glibc goes on adapting.)
    """
    np.empty(LARGE, np.uint8)
