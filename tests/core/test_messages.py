import pytest

from supcon_pipeline.core.messages import (
    InputError,
    name_some,
    nearest_names,
    printable,
    require_extra,
    show,
    suggest,
)


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


def test_a_long_value_is_cut_in_the_middle_and_a_short_one_is_whole() -> None:
    assert show([1, "a"]) == "[1, 'a']"
    assert show("a" * 50 + "b" * 50, 20) == "'aaaaaaaaaa...bbbbb'"
    assert len(show("a" * 5000)) == 120


def test_what_cannot_be_seen_is_written_out_and_names_in_any_script_stay() -> None:
    assert printable("K\u00e4fer \u732b\x1b[0m\n") == "K\u00e4fer \u732b\\x1b[0m\\n"


def test_a_refusal_has_the_control_characters_of_a_value_written_out() -> None:
    refused = InputError("split must be train, got \x1b[31mred\x07\t\x9b0m größer;\nlr must be above 0")
    assert str(refused) == (
        "split must be train, got \\x1b[31mred\\x07\\t\\x9b0m größer;\nlr must be above 0"
    )
