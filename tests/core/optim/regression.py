import io

import torch
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.optim.optimizers import build_optimizer

# With LARS's trust coefficient of 0.001, its rates are of another order.
RATES = {"sgd": 0.05, "lookahead": 0.05, "lars": 1.0}


def sgd(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def named(model, name, **options):
    return build_optimizer(model, name, RATES.get(name, 0.01), weight_decay=0.01, **options)


def take_steps(model, optimizer, batch, num_steps, schedule=None):
    views, targets = batch
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(views), targets)
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
    return loss.item()


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
