"""Settings of torch are as before afterwards, also after an error."""

import pytest
import torch

from uwml_lib.support.numerics import tf32_products, threads


def test_settings_are_put_back():
    def settings():
        return torch.get_num_threads(), torch.get_float32_matmul_precision()

    before = settings()
    for allowed, precision in ((True, "high"), (False, "highest")):
        with pytest.raises(KeyError), threads(before[0] + 1), tf32_products(not allowed):
            with tf32_products(allowed):
                assert settings() == (before[0] + 1, precision)
            raise KeyError
        assert settings() == before
