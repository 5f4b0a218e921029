"""What a processor needs so that the same input gives the same bits. Import it before torch."""

import os
import platform
from pathlib import Path


def is_amd() -> bool:
    """Return whether this is a processor of AMD."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "AMD" in platform.processor()


def ask_for_same_bits() -> None:
    """Ask MKL, which computes for torch, for the same bits in every run, unless MKL_CBWR asks for something already.

    MKL reads it once, when it is first called. On Intel's processors it gives them unasked, as far as has been seen,
    and asking costs speed; on AMD's it did not always.
    """
    if is_amd():
        os.environ.setdefault("MKL_CBWR", "AUTO")
