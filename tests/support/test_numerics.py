"""Settings of torch are as before afterwards, also after an error; what precision "auto" stands for."""

import pytest
import torch

from uwml_lib.config import ExperimentConfig, preset
from uwml_lib.support import numerics
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


@pytest.mark.parametrize(
    ("has", "accelerator", "device", "precision"),
    [
        ("_is_avx512_bf16_supported", "cpu", "auto", "bf16"),
        ("_is_amx_tile_supported", "cpu", "auto", "bf16"),
        ("", "cpu", "auto", "no"),
        ("_is_amx_tile_supported", "cuda", "auto", "no"),
        ("_is_amx_tile_supported", "cuda", "cpu", "bf16"),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_has_it(monkeypatch, has, accelerator, device, precision):
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda check=check: check == has)
    monkeypatch.setattr(numerics, "this_device", lambda: torch.device(accelerator))
    config = ExperimentConfig(mixed_precision="auto", device=device)
    assert config.mixed_precision == precision and config.to_dict()["mixed_precision"] == precision
    narrow = ExperimentConfig(mixed_precision="auto", device=device, embed_size=64)
    assert narrow.mixed_precision == "no", "where it is slower"
    assert preset("f8k_regions", device=device).mixed_precision == precision, "photographs are trained so"
    assert preset("scenes", device=device).mixed_precision == "no"
    assert config.run_name("x") == ExperimentConfig(mixed_precision=precision, device=device).run_name("x")
