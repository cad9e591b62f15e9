import pytest

from supcon_pipeline.core.messages import InputError, name_some, nearest_names, require_extra, suggest


def test_the_nearest_name_is_suggested_or_else_all_that_are_known() -> None:
    known = ["supcon", "sincere", "simclr"]
    assert suggest("supconn", known) == "did you mean 'supcon'?"
    assert suggest("xyz", known) == "known are supcon, sincere, simclr"
    assert nearest_names("resnet1", ["resnet18", "resnet101", "vgg11"], most=2) == ["resnet18", "resnet101"]


@pytest.mark.parametrize(
    ("names", "words"), [([], ""), ("ab", "a, b"), ("abc", "a, b, c"), (iter("abcd"), "a, b, c, and others")]
)
def test_the_first_few_of_many_names_are_given(names: object, words: str) -> None:
    assert name_some(names) == words  # type: ignore[arg-type]


def test_an_extra_that_is_not_installed_is_named_with_the_command_that_installs_it() -> None:
    require_extra("onnx", "json")
    message = (
        "^no_such_module must be installed for this, got no such module; "
        r"type pip install 'supcon_pipeline\[onnx\]'$"
    )
    with pytest.raises(InputError, match=message):
        require_extra("onnx", "json", "no_such_module")
