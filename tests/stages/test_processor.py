import os

import pytest

from stages import cli as processor


def test_mkl_is_asked_on_amd_alone_and_not_over_the_users_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setattr(processor, "is_amd", lambda: False)
    processor.request_same_bits()
    assert "MKL_CBWR" not in os.environ
    monkeypatch.setattr(processor, "is_amd", lambda: True)
    processor.request_same_bits()
    assert os.environ["MKL_CBWR"] == "AUTO"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    processor.request_same_bits()
    assert os.environ["MKL_CBWR"] == "COMPATIBLE"
