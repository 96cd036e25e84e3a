"""One image of 16 x 12 pixels, 12 bits, as High-Throughput JPEG 2000: no Python package here writes it.

Written with OpenJPH 0.9: `ojph_compress -num_decomps 2`, with `-reversible true` and with `-qstep 0.0005`. The order of
progression is RPCL in both.
"""

from __future__ import annotations

import base64

import numpy as np

__all__ = ["CODESTREAMS", "image"]


def image() -> np.ndarray:
    """Return the image, (12, 16)."""
    rows, columns = np.mgrid[:12, :16]
    return (1000 + 37 * columns + 61 * rows + (rows * columns) % 7).astype(np.uint16)


_LOSSLESS = base64.b64decode(
    "/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABCwEB/1AACAACAAAAB/9SAAwAAgABAAIEBEAB/1wACiBw"
    "eHh4cHB4/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAAAugAB/5PAAWuALQhywCu63fuHdHrBusXF8Rt/GQDTNwDAAK2A"
    "AV8AAqhIAJEIANBDP5iFNpcAwoAsSlBA/EAhAe50lZgAIAoBH/os7Om1AMABbcABdHAALaDVBBCEIWEbAEgqPQSBQE6WhXyVcTXC"
    "Kz197QARIwhQNi4LL6AHOqDbAnzg42AAAAW2AAAJuhZUKvTym49SAZvmqEjkKKWmLFzTxSalOobbqn6u8h/7pF4A/9k="
)
_LOSSY = base64.b64decode(
    "/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABCwEB/1AACAACAAAAJf9SAAwAAgABAAIEBEAA/1wAESJ3"
    "5mg1aDVoeGAaYBpvv/9kABYAAU9wZW5KUEggVmVyIDAuOS4wLv+QAAoAAAAAAKMAAf+TwAFsABFP4JMuUb/uX4jAhmDHDbzMG38h"
    "ANG3AMACvgAWhAAmmkXl4gcoVAAMf/gFKXcALGQPG+yAc73cAk9zJDG3AIwCZ5rVAMAFrQAW/AArgPaEu/RShDAOwYNKKS34lIr/"
    "FZnbfABMABL4T/Jwl0wywQMXTfAAAAOwQAABF43bpabq6jABI+H+AOW/2M1uswrb2wD/2Q=="
)
# transfer syntax -> bytes
CODESTREAMS = {
    "1.2.840.10008.1.2.4.201": _LOSSLESS,
    "1.2.840.10008.1.2.4.202": _LOSSLESS,
    "1.2.840.10008.1.2.4.203": _LOSSY,
}
