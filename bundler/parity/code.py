"""The erasure code: systematic Reed-Solomon over GF(2^8), by a Cauchy matrix.

With ``k`` data blocks ``d[0] … d[k-1]`` and ``m`` parity blocks, each byte of parity block ``i`` is

::

    p[i] = Σ_j inverse((k + i) xor j) · d[j]        in GF(2)[x] / (x^8 + x^4 + x^3 + x^2 + 1)

where ``k + i`` and ``j`` are field elements by their bits (polynomial 0x11d, generator 2). Every
square submatrix of a Cauchy matrix is invertible, so any ``k`` of the ``k + m`` blocks give the
others. This is the matrix of Intel's ISA-L (``gf_gen_cauchy1_matrix``), which does the work here
through pyeclib; the tests hold it to the formula above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from schemas import limits
from schemas.errors import ContentMismatch, DependencyMissing, UnsupportedRequest

# pyeclib puts its own header before every fragment. It depends on the fragment's number and length
# alone, so it is left out of what is stored, and put before it again to rebuild.
_HEADER: Final = 80
_BACKEND: Final = "isa_l_rs_cauchy"


class Code:
    """Parity of, and rebuilding from, slices of equal length; close it, or use it in ``with``.

    Args:
        data: How many data files, from 1.
        parity: How many parity files, from 1.

    Raises:
        UnsupportedRequest: More files than the field has elements.
        DependencyMissing: This build of pyeclib is without ISA-L.
    """

    def __init__(self, data: int, parity: int) -> None:
        from pyeclib.ec_iface import ECDriver, ECDriverError

        if data < 1 or parity < 1 or data + parity > limits.PARITY_FILES:
            raise UnsupportedRequest(
                f"no parity of {parity} over {data} volumes",
                why=f"from 1, and {limits.PARITY_FILES} together at most",
                hint="Use larger volumes",
            )
        self.data = data
        self.parity = parity
        self._headers: dict[int, list[bytes]] = {}
        try:
            self._driver = ECDriver(k=data, m=parity, ec_type=_BACKEND)
        except ECDriverError as error:
            raise DependencyMissing(
                "pyeclib cannot compute parity", why=str(error), hint="Install its wheel from PyPI"
            ) from None

    def close(self) -> None:
        """Give the tables back; again is fine."""
        from pyeclib.ec_iface import ECDriverError

        with suppress(ECDriverError):
            self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def encode(self, slices: Sequence[memoryview]) -> list[memoryview]:
        """Parity of one slice per data file.

        Args:
            slices: ``data`` of one length, a multiple of 512; 16 KiB or so is fastest, for all of
                it stays in the processor's cache.

        Returns:
            ``parity`` slices of that length.
        """
        fragments = self._driver.encode(b"".join(slices))
        return [memoryview(fragment)[_HEADER:] for fragment in fragments[self.data :]]

    def rebuild(self, have: Mapping[int, memoryview], wanted: Sequence[int]) -> list[memoryview]:
        """Slices that are missing.

        Args:
            have: File number (data first, then parity) to its slice; ``data`` of them.
            wanted: File numbers, none of them in ``have``.

        Raises:
            ContentMismatch: The library refuses; it does not for what is described here.
        """
        from pyeclib.ec_iface import ECDriverError

        size = len(next(iter(have.values())))
        headers = self._fragment_headers(size)
        fragments = [b"".join((headers[number], part)) for number, part in have.items()]
        try:
            rebuilt = self._driver.reconstruct(fragments, list(wanted))
        except ECDriverError as error:
            raise ContentMismatch("cannot rebuild a stripe", why=str(error)) from None
        return [memoryview(fragment)[_HEADER:] for fragment in rebuilt]

    def _fragment_headers(self, size: int) -> list[bytes]:
        found = self._headers.get(size)
        if found is None:
            fragments = self._driver.encode(bytes(self.data * size))
            found = self._headers[size] = [fragment[:_HEADER] for fragment in fragments]
        return found
