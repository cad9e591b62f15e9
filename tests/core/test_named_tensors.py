import pytest
import torch
from tests.gpu import needs_gpu
from torch import nn

from supcon_pipeline.core.models.encoder import restore_model
from supcon_pipeline.core.named_tensors import (
    NamedTensors,
    fingerprint,
    join_parts,
    require_encoder,
    require_order,
    require_origin,
    split_parts,
)

CLASSIFIER = {"kind": "classifier", "num_features": 4, "num_classes": 3}


def test_joined_parts_are_taken_apart_again():
    # More than ten parts, so that their numbers do not sort as words; names that hold the separator.
    parts = [
        NamedTensors({"a/b": torch.tensor([index]), "a": torch.randn(2)}, {"epoch": index})
        for index in range(11)
    ]
    parts.append(NamedTensors({}, {"epoch": "none"}))
    restored = split_parts(join_parts(parts))
    assert [part.metadata for part in restored] == [part.metadata for part in parts]
    for part, original in zip(restored, parts, strict=True):
        assert list(part.tensors) == list(original.tensors)
        assert all(torch.equal(part.tensors[name], original.tensors[name]) for name in original.tensors)


def test_no_parts_are_joined_and_taken_apart():
    assert split_parts(join_parts([])) == []


def test_a_model_is_restored_with_its_weights_in_evaluation_mode():
    original = nn.Linear(4, 3)
    model = restore_model(NamedTensors(original.state_dict(), {"model": CLASSIFIER}))
    rows = torch.randn(2, 4)
    assert torch.equal(model(rows), original(rows))
    assert not model.training


@pytest.mark.parametrize(
    ("entry", "tensor", "message"),
    [
        ("bias", None, 'Missing key.* "bias"'),
        ("scale", torch.ones(1), 'Unexpected key.* "scale"'),
        ("weight", torch.ones(3, 5), "size mismatch for weight"),
    ],
)
def test_weights_that_do_not_fit_the_description_are_refused(entry, tensor, message):
    tensors = {**nn.Linear(4, 3).state_dict(), entry: tensor}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(RuntimeError, match=message):
        restore_model(NamedTensors(tensors, {"model": CLASSIFIER}))


def test_the_fingerprint_changes_with_every_value_name_type_and_shape():
    weight = torch.arange(1.0, 7.0)
    states = [
        {"weight": weight},
        {"weight": weight.nextafter(torch.tensor(9.0))},
        {"weights": weight},
        {"weight": weight.view(2, 3)},
        {"weight": weight.view(torch.int32)},
        {"weight": weight, "bias": torch.zeros(0)},
        {"weight": weight, "bias": torch.zeros(())},
        {},
    ]
    digests = {fingerprint(NamedTensors(state)) for state in states}
    assert len(digests) == len(states)
    assert {len(digest) for digest in digests} == {64}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_every_type_have_a_fingerprint(dtype):
    zeros, ones = (NamedTensors({"a": make(3, dtype=dtype)}) for make in (torch.zeros, torch.ones))
    assert fingerprint(zeros) == fingerprint(NamedTensors({"a": torch.zeros(3, dtype=dtype)}))
    assert fingerprint(zeros) != fingerprint(ones)


def test_the_fingerprint_does_not_depend_on_order_layout_or_metadata():
    weight, bias = torch.randn(2, 3, 4, 4), torch.randn(2)
    state = NamedTensors({"weight": weight, "bias": bias}, {"epoch": 1})
    other = NamedTensors({"bias": bias, "weight": weight.to(memory_format=torch.channels_last)})
    assert fingerprint(state) == fingerprint(other)


def test_a_state_of_the_right_origin_passes_and_another_is_refused():
    state = {"data_hash": "0123456789abcdef"}
    require_origin("encoder", state, "data_hash", "0123456789abcdef", "run stage1")
    # Told apart by what is not in the message, too.
    with pytest.raises(ValueError, match="of the encoder must be 0123456789ab, got 0123456789ab; run stage1"):
        require_origin("encoder", state, "data_hash", "0123456789abcdeX", "run stage1")
    with pytest.raises(
        ValueError,
        match="encoder_hash of the classifier must be 77, got None; run stage2",
    ):
        require_origin("classifier", state, "encoder_hash", "77", "run stage2")


def test_a_classifier_of_the_encoder_passes_and_another_is_refused():
    classifier = NamedTensors({}, {"encoder_hash": "0123456789abcdef"})
    require_encoder(classifier, "0123456789abcdef")
    with pytest.raises(
        ValueError,
        match=r"encoder_hash of the classifier must be 77, got 012.*; type: kedro run .*stage2_swa",
    ):
        require_encoder(classifier, "77")


def test_embeddings_of_the_samples_pass_and_others_are_refused():
    embeddings = NamedTensors({}, {"sample_ids": ["a", "b", "c"]})
    require_order(embeddings, ["a", "b", "c"])
    with pytest.raises(
        ValueError,
        match=r"embeddings must have sample None at row 2, .* got 'c'; type: kedro run .*evaluation",
    ):
        require_order(embeddings, ["a", "b"])
    with pytest.raises(
        ValueError,
        match=r"embeddings must have sample 'c' at row 1, .* got 'b'; type: kedro run .*evaluation",
    ):
        require_order(embeddings, ["a", "c", "b"])


@needs_gpu
def test_a_fingerprint_is_the_same_on_a_gpu():
    tensors = {"weight": torch.randn(3, 2), "count": torch.tensor(5), "half": torch.randn(4).bfloat16()}
    on_gpu = {name: tensor.cuda() for name, tensor in tensors.items()}
    assert fingerprint(NamedTensors(on_gpu)) == fingerprint(NamedTensors(tensors))
