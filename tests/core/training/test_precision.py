import math

import pytest
import torch
from tests.gpu import needs_gpu
from torch import nn

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.training import precision as precision_module
from supcon_pipeline.core.training.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    # bfloat16 must be faster by a fifth, for it costs digits.
    [(1.0, 0.5, "bfloat16"), (1.0, 0.79, "bfloat16"), (1.0, 0.81, "float32"), (1.0, 300.0, "float32")],
)
def test_on_a_cpu_auto_is_what_was_measured_to_be_faster(monkeypatch, float32, bfloat16, chosen):
    seconds = {torch.float32: float32, torch.bfloat16: bfloat16}
    monkeypatch.setattr(precision_module, "_convolution_seconds", seconds.__getitem__)
    assert choose_precision("auto", CPU).name == chosen


def test_the_measurement_is_the_least_of_four_rounds_after_the_first(monkeypatch):
    # float32 and bfloat16 take turns; a slow first round and one slow turn decide nothing.
    ticks = iter([1.0, 9.0, 4.0, 2.0, 4.0, 8.0, 4.0, 2.0, 4.0, 2.0])
    monkeypatch.setattr(precision_module, "_convolution_seconds", lambda _: next(ticks))
    assert choose_precision("auto", CPU).name == "bfloat16"
    assert next(ticks, None) is None


def test_the_measured_convolution_goes_forward_and_backward_and_leaves_no_trace():
    before = torch.get_rng_state()
    with torch.no_grad():
        assert precision_module._convolution_seconds(torch.float32) > 0
        assert precision_module._convolution_seconds(torch.bfloat16) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_auto_on_this_machine_is_a_precision_that_works():
    chosen = choose_precision("auto", CPU)
    assert chosen.name in ("float32", "bfloat16")
    with chosen.autocast():
        assert nn.Linear(3, 2)(torch.rand(4, 3)).isfinite().all()


def test_float16_on_a_cpu_is_refused():
    message = r"precision must be .* on a CPU, got 'float16'; add --params stage1\.precision=auto"
    with pytest.raises(InputError, match=message):
        choose_precision("float16", CPU, "stage1.precision")


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        ValueError, match=r"precision must be one of auto, float32, bfloat16, float16, got 'float64'"
    ):
        choose_precision("float64", CPU)


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_forward_pass_has_the_precision_and_the_weights_stay_float32(name, dtype):
    linear = nn.Linear(3, 2)
    with choose_precision(name, CPU).autocast():
        rows = linear(torch.rand(4, 3))
        assert torch.is_autocast_enabled("cpu") is (name == "bfloat16")
    assert rows.dtype == dtype
    assert not torch.is_autocast_enabled("cpu")
    rows.float().sum().backward()
    assert linear.weight.dtype == linear.weight.grad.dtype == torch.float32


def test_float32_is_float32_inside_another_precision():
    with torch.autocast("cpu", torch.bfloat16), choose_precision("float32", CPU).autocast():
        assert nn.Linear(3, 2)(torch.rand(4, 3)).dtype == torch.float32


def dirty_memory() -> None:
    """Leave NaN in memory that is given out again."""
    for count in (100, 1_000, 10_000, 30_000, 100_000, 300_000):
        torch.full((count,), math.nan)
        torch.full((count,), math.nan, dtype=torch.bfloat16)


# Kernel, stride, dilation, groups and sides of maps for which bfloat16 gave other gradients in every run.
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "sides"),
    [
        (1, 2, 1, 1, (1, 1)),
        (3, 2, 1, 1, (1, 1)),
        (3, 2, 1, 1, (2, 1)),
        (3, 4, 1, 16, (3, 3)),
        (3, 1, 2, 1, (1, 1)),
        (5, 1, 1, 1, (1, 5)),
        (5, 2, 1, 64, (1, 1)),
        (7, 1, 1, 1, (2, 2)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_convolution_of_small_maps_is_that_of_float32(
    kernel, stride, dilation, groups, sides, layout
):
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, kernel, stride, dilation * (kernel // 2), dilation, groups).to(
        memory_format=layout
    )
    maps = torch.randn(8, 64, *sides).contiguous(memory_format=layout)
    exact = conv(maps)
    cotangent = torch.randn_like(exact).sign()
    expected = torch.autograd.grad(exact, conv.parameters(), cotangent)
    dirty_memory()
    with choose_precision("bfloat16", CPU).autocast():
        output = conv(maps)
    dirty_memory()
    assert torch.equal(output, exact.bfloat16())
    gradients = torch.autograd.grad(output, conv.parameters(), cotangent.bfloat16())
    for gradient, exact_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, exact_gradient)


def test_a_convolution_of_large_maps_stays_in_bfloat16():
    conv, maps = nn.Conv2d(4, 4, 3, stride=2, padding=1), torch.randn(2, 4, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        expected = conv(maps)
    with choose_precision("bfloat16", CPU).autocast():
        assert torch.equal(conv(maps), expected)
    assert not torch.equal(conv(maps).bfloat16(), expected)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_scaler_of_a_wide_range_does_nothing(name):
    scaler = choose_precision(name, CPU).scaler
    assert scaler.scale(torch.tensor(3.0)).item() == 3.0
    assert scaler.state_dict() == {}


@pytest.mark.parametrize(("has_bfloat16", "chosen"), [(True, "bfloat16"), (False, "float16")])
def test_on_cuda_auto_is_bfloat16_where_the_device_has_it(monkeypatch, has_bfloat16, chosen):
    asked = []

    def is_supported(including_emulation):
        asked.append(including_emulation)
        return has_bfloat16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    # The scaler would warn where there is no GPU.
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: (device, enabled))
    precision = choose_precision("auto", torch.device("cuda"))
    assert (precision.name, precision.scaler) == (chosen, ("cuda", chosen == "float16"))
    assert asked == [False]


@needs_gpu
@pytest.mark.parametrize("name", ["auto", "float32", "bfloat16", "float16"])
def test_every_precision_works_on_a_gpu(name):
    linear = nn.Linear(3, 2).cuda()
    precision = choose_precision(name, torch.device("cuda"))
    with precision.autocast():
        rows = linear(torch.rand(4, 3, device="cuda"))
    assert rows.dtype == getattr(torch, precision.name)
    # The scale alone would be infinite in float16.
    precision.scaler.scale(rows.float().mean()).backward()
    assert linear.weight.grad.isfinite().all()


@needs_gpu
def test_float16_gradients_are_scaled_on_a_gpu():
    scaler = choose_precision("float16", torch.device("cuda")).scaler
    assert scaler.scale(torch.ones((), device="cuda")).item() == scaler.get_scale() > 1
