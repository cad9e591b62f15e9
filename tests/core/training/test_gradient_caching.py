import copy
import math

import pytest
import torch
from tests.gpu import needs_gpu
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.losses import supcon_loss
from supcon_pipeline.core.training.gradient_caching import cached_backward
from supcon_pipeline.core.training.precision import choose_precision

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1, 2, 0])
NUM_ROWS = 2 * len(LABELS)


class TinyModel(nn.Module):
    """Two outputs, one of which the loss does not look at."""

    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), *layers)
        self.head = nn.Linear(8, 5)

    def forward(self, rows):
        embedding = self.body(rows)
        return {"embedding": embedding, "projection": functional.normalize(self.head(embedding), dim=1)}


def supcon(outputs):
    return supcon_loss(outputs["projection"].unflatten(0, (-1, 2)), LABELS, 0.3)


def both_outputs(outputs):
    return supcon(outputs) + outputs["embedding"].square().sum(dim=1).amax()


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def cached(model, rows, num_rows, criterion=supcon, precision="float32"):
    return cached_backward(model, rows, num_rows, criterion, choose_precision(precision, torch.device("cpu")))


def even_parts(rows, num_rows):
    """As few parts of at most so many rows as there can be, larger ones first, by a slow loop."""
    num_parts, start = math.ceil(len(rows) / num_rows), 0
    for index in range(num_parts):
        size = len(rows) // num_parts + (index < len(rows) % num_parts)
        yield rows[start : start + size]
        start += size


@pytest.fixture
def rows():
    return torch.randn(NUM_ROWS, 6)


# 22 rows: in parts of one size, in parts that differ by one, in one part.
@pytest.mark.parametrize("num_rows", [1, 2, 4, 11, 20, 22, 100])
@pytest.mark.parametrize("criterion", [supcon, both_outputs])
def test_the_gradient_is_that_of_the_whole_batch(rows, num_rows, criterion):
    model = TinyModel(nn.LayerNorm(8))
    plain = copy.deepcopy(model)
    expected = criterion(plain(rows))
    expected.backward()
    loss = cached(model, rows, num_rows, criterion)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    assert not loss.requires_grad
    assert gradients(model).keys() == gradients(plain).keys()
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_rows", "sizes"), [(11, [11, 11]), (21, [11, 11]), (8, [8, 7, 7]), (22, [22])])
def test_parts_are_of_nearly_one_size_and_none_is_a_row_alone(rows, num_rows, sizes):
    model, seen = TinyModel(nn.BatchNorm1d(8)), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    cached(model, rows, num_rows)
    assert seen == sizes * 2


def test_a_compiled_model_is_compiled_once_for_each_size_and_pass(rows):
    model, graphs = TinyModel(nn.BatchNorm1d(8)), []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    model.compile(backend=backend, dynamic=False)
    for _ in range(3):
        cached(model, rows, 2)
    # Eleven parts of one size: without a gradient, and with one.
    assert len(graphs) == 2


def test_the_gradient_is_added_to_what_is_there(rows):
    model = TinyModel()
    cached(model, rows, 4)
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    cached(model, rows, 4)
    torch.testing.assert_close(gradients(model), {name: 2 * gradient for name, gradient in once.items()})


@pytest.mark.parametrize("num_rows", [4, 5, 22])
def test_random_numbers_are_the_same_in_both_passes(rows, num_rows):
    model = TinyModel(nn.Dropout(0.4))
    plain = copy.deepcopy(model)
    torch.manual_seed(5)
    parts = [plain(part) for part in even_parts(rows, num_rows)]
    expected = supcon({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    expected.backward()
    following = torch.rand(3)

    torch.manual_seed(5)
    loss = cached(model, rows, num_rows)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-5, atol=1e-6)
    # The second pass has drawn nothing.
    assert torch.equal(torch.rand(3), following)


def test_each_part_has_random_numbers_of_its_own():
    model, seen = TinyModel(nn.Dropout(0.5)), []
    model.body[2].register_forward_hook(lambda _, __, output: seen.append(output == 0))
    cached(model, torch.ones(NUM_ROWS, 6), 11)
    first, second, first_again, second_again = seen
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("num_rows", [4, 5, 11, 22])
def test_each_part_is_normalised_by_its_own_statistics(rows, num_rows):
    model = TinyModel(nn.BatchNorm1d(8))
    plain = copy.deepcopy(model)
    parts = [plain(part) for part in even_parts(rows, num_rows)]
    expected = supcon({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    expected.backward()
    loss = cached(model, rows, num_rows)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_rows", [4, 5, 22])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_move_once_by_their_mean_over_the_parts(rows, num_rows, momentum):
    model = TinyModel(nn.BatchNorm1d(8, momentum=momentum))
    norm = model.body[2]
    model(torch.randn(7, 6) * 3)
    mean, var, count = norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.item()
    weight = 1 / (count + 1) if momentum is None else momentum
    with torch.no_grad():
        parts = [model.body[:2](part) for part in even_parts(rows, num_rows)]
    part_mean = sum(len(part) * part.mean(dim=0) for part in parts) / NUM_ROWS
    part_var = sum(len(part) * part.var(dim=0) for part in parts) / NUM_ROWS

    cached(model, rows, num_rows)
    torch.testing.assert_close(norm.running_mean, (1 - weight) * mean + weight * part_mean)
    torch.testing.assert_close(norm.running_var, (1 - weight) * var + weight * part_var)
    assert norm.num_batches_tracked.item() == count + 1
    assert norm.momentum == momentum


def test_one_part_moves_the_statistics_as_a_plain_step_does(rows):
    model = TinyModel(nn.BatchNorm1d(8))
    plain = copy.deepcopy(model)
    for _ in range(3):
        supcon(plain(rows)).backward()
        cached(model, rows, NUM_ROWS)
    torch.testing.assert_close(dict(model.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8).eval(), nn.BatchNorm1d(8, track_running_stats=False)])
def test_batch_norms_without_statistics_of_their_own_to_move_stay_as_they_are(rows, norm):
    model = TinyModel(copy.deepcopy(norm))
    before = copy.deepcopy(model.state_dict())
    cached(model, rows, 4)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


class AliveTensors:
    """What graphs hold for their backward pass, counted while it is held."""

    def __init__(self):
        self.alive, self.most = 0, 0

    def pack(self, tensor):
        tally = self

        class Held:
            def __init__(self):
                self.tensor, self.num_rows = tensor, len(tensor) if tensor.ndim else 1
                tally.alive += self.num_rows
                tally.most = max(tally.most, tally.alive)

            def __del__(self):
                tally.alive -= self.num_rows

        return Held()


def most_rows_held(backward):
    alive = AliveTensors()
    with torch.autograd.graph.saved_tensors_hooks(alive.pack, lambda held: held.tensor):
        backward()
    assert alive.alive == 0
    return alive.most


class WithoutWeights(nn.Module):
    """Its graph holds activations alone: two for each row."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 6))

    def forward(self, rows):
        return {"projection": torch.tanh(torch.tanh(rows + self.scale))}


def test_the_activations_of_one_part_are_alive_at_a_time(rows):
    model = WithoutWeights()
    criterion = lambda outputs: outputs["projection"].sum()  # noqa: E731
    assert most_rows_held(lambda: criterion(model(rows)).backward()) == 2 * NUM_ROWS
    assert most_rows_held(lambda: cached(model, rows, 2, criterion)) == 2 * 2


def test_the_graph_of_a_part_is_gone_before_the_next_part(rows):
    model, alive, seen = TinyModel(), AliveTensors(), []
    model.register_forward_pre_hook(lambda *_: seen.append(alive.alive))
    with torch.autograd.graph.saved_tensors_hooks(alive.pack, lambda held: held.tensor):
        cached(model, rows, 4)
    assert seen == [0] * 12


def test_the_outputs_of_a_lower_precision_give_nearly_the_same_gradient(rows):
    model = TinyModel()
    plain = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        expected = supcon(plain(rows))
    expected.backward()
    loss = cached(model, rows, 4, precision="bfloat16")
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=0)
    # bfloat16 has 8 bits; parts are added up in another order.
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=2e-2, atol=2e-3)


@needs_gpu
@pytest.mark.parametrize("layer", [nn.LayerNorm(8), nn.Dropout(0.4)])
def test_on_a_gpu_random_numbers_are_replayed_and_the_gradient_is_that_of_the_whole(rows, layer):
    model = TinyModel(layer).cuda()
    rows, plain = rows.cuda(), copy.deepcopy(model)
    labels = LABELS.cuda()
    criterion = lambda out: supcon_loss(out["projection"].unflatten(0, (-1, 2)), labels)  # noqa: E731
    torch.manual_seed(5)
    # Of the same sizes: what a GPU draws depends on how much it draws at once.
    parts = [plain(part) for part in rows.tensor_split(math.ceil(len(rows) / 5))]
    criterion({name: torch.cat([part[name] for part in parts]) for name in parts[0]}).backward()
    torch.manual_seed(5)
    cached_backward(model, rows, 5, criterion, choose_precision("float32", rows.device))
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-4, atol=1e-5)
