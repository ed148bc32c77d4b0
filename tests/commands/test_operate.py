"""Where the commands of operators take their token from."""

import pytest

from gateway.commands.operate import OperateError, token_of, trust


def test_a_token_comes_from_a_file_or_the_environment(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.write_text("one\n")
    other.write_text("two")
    environment = {"TIDEGATE_OPS_TOKEN_FILE": str(other), "TIDEGATE_OPS_TOKEN": "three"}
    assert token_of(mine, environment) == "one"
    assert token_of(None, environment) == "two"
    del environment["TIDEGATE_OPS_TOKEN_FILE"]
    assert token_of(None, environment) == "three"
    assert token_of(None, {}) == ""


@pytest.mark.parametrize("content", [None, "", "two words", "name operate token"])
def test_a_file_without_one_token_is_named_and_its_content_is_not(tmp_path, content):
    file = tmp_path / "mine"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OperateError, match=str(file)) as caught:
        token_of(file, {})
    assert "words" not in str(caught.value)


def test_a_ca_file_without_a_certificate_is_named(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(OperateError, match=r"ca\.pem"):
        trust(tmp_path / "ca.pem")
