import torch
from torch.nn import functional

# Two classes with gaps in their ids, and one image alone in its class; unsorted.
LABELS = torch.tensor([7, -3, 7, 40, -3, 7])
ANGLES = torch.tensor([0.0, 60.0, 90.0])


def unit_rows(batch, views=2, dim=5, dtype=torch.float64):
    return functional.normalize(torch.randn(batch, views, dim, dtype=dtype), dim=-1)


def soft_labels(batch, num_classes=4):
    return torch.rand(batch, num_classes, dtype=torch.float64).pow(4).softmax(dim=1)


def rows_and_weights(projections, labels):
    """All rows, and by pair how much the one is a positive of the other."""
    num_views = projections.shape[1]
    labels = torch.arange(len(projections)) if labels is None else labels
    rows, row_labels = projections.flatten(0, 1), labels.repeat_interleave(num_views, dim=0)
    if labels.is_floating_point():
        return rows, (row_labels @ row_labels.T).tolist()
    return rows, [[float(one == other) for other in row_labels] for one in row_labels]


def value_and_gradient(function, projections, *arguments):
    leaf = projections.detach().clone().requires_grad_()
    value = function(leaf, *arguments)
    value.backward()
    return value.detach(), leaf.grad


def assert_same(first, second, tolerance=1e-9, floor=1e-12):
    """Value and, as a whole, gradient."""
    for one, other in zip(first, second, strict=True):
        assert (
            float((one.double() - other.double()).norm()) <= tolerance * float(other.double().norm()) + floor
        )


def assert_same_on_gpu(function, plain, projections, labels, temperature):
    """Value and gradient on a GPU are those of the plain formula on the CPU, as well as their type can be."""
    expected = value_and_gradient(plain, projections, labels, temperature)
    labels = None if labels is None else labels.cuda()

    def under_autocast(*arguments):
        with torch.autocast("cuda", torch.bfloat16):
            return function(*arguments)

    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        rows = projections.to("cuda", dtype)
        for way in (function, under_autocast):
            value, gradient = value_and_gradient(way, rows, labels, temperature)
            assert value.dtype == gradient.dtype == dtype
            assert_same([value.cpu(), gradient.cpu()], expected, tolerance)
    half = projections.cuda().bfloat16()
    whole = value_and_gradient(function, half.float(), labels, temperature)
    value, gradient = value_and_gradient(under_autocast, half, labels, temperature)
    assert (value.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    assert_same([value], whole[:1], 1e-6)
    assert_same([gradient], whole[1:], 4e-3)
