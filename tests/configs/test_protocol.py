"""A protocol is read as strictly as a training configuration."""

import pytest

from configs.schema import ConfigError, read_protocol


@pytest.fixture
def write(tmp_path):
    def written(text):
        (tmp_path / "protocol.toml").write_text(text)
        return tmp_path / "protocol.toml"

    return written


def test_a_protocol_is_complete_with_its_defaults_and_names_its_file(write):
    path = write('target = "opacity"\nmetric = "recall"\npolicy = "max_f1"\nmargin = 0.05\n')
    protocol, digest = read_protocol(path)
    assert (protocol.metric, protocol.policy, protocol.margin) == ("recall", "max_f1", 0.05)
    assert (protocol.subgroups, protocol.unit, protocol.reference) == ([], None, None)
    path.write_text(path.read_text() + "\n")
    assert len(digest) == 64
    assert read_protocol(path)[1] != digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('target = "a"\nmargn = 0.1', "margn: unknown key; did you mean 'margin'"),
        ("margin = 0.1", "target: is missing; add it"),
        ('target = "a"\nmargin = "0.1"', "margin: input should be a valid number, got '0.1'"),
        ('target = "a"\nmargin = 0.0', "margin: input should be greater than 0"),
        ('target = "a"\nunit = "lung"', "unit: input should be 'image', 'study' or 'patient'"),
        ("target = ", "is not TOML"),
    ],
)
def test_a_slip_is_told_in_one_line(write, text, says):
    with pytest.raises(ConfigError) as told:
        read_protocol(write(text))
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_protocol(tmp_path / "none.toml")
