"""Settings: precedence, and what is said of a value that does not parse."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.config import TABLE, Config, read
from emulator.errors import SetupError


def test_defaults_without_environment_or_file(tmp_path: Path) -> None:
    config = read({}, tmp_path)
    assert (config.region, config.account) == ("eu-west-3", "123456789012")
    assert config.keep_warm_s == (600, 600)
    assert config.serverless_payload_bytes == 4 * 1024 * 1024


def test_every_setting_has_a_field_a_help_and_a_default_that_parses(tmp_path: Path) -> None:
    assert [setting.name for setting in TABLE] == list(Config.__dataclass_fields__)
    assert all(setting.help.endswith(".") for setting in TABLE)
    read({setting.variable: setting.default for setting in TABLE}, tmp_path)


def test_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "lukewarm.toml").write_text('region = "us-east-1"\nseed = 7\nbill_startup = true\n')
    config = read({"EMULATOR_REGION": "eu-west-1"}, tmp_path)
    assert (config.region, config.seed, config.bill_startup) == ("eu-west-1", 7, True)


def test_keep_warm_may_be_a_range(tmp_path: Path) -> None:
    assert read({"EMULATOR_KEEP_WARM_S": "300-900"}, tmp_path).keep_warm_s == (300, 900)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("EMULATOR_SEED", "many", "a whole number from 0 to 2147483646"),
        ("EMULATOR_CLOCK", "sundial", "one of wall, virtual"),
        ("EMULATOR_KEEP_WARM_S", "-3", "a range of seconds"),
        ("EMULATOR_KEEP_WARM_S", "900-300", "a range of seconds"),
        ("EMULATOR_KEEP_WARM_S", "nan", "a range of seconds"),
        ("EMULATOR_COLD_START", "fast", "none, aws, or a number of seconds"),
        ("EMULATOR_COLD_START", "nan", "none, aws, or a number of seconds"),
        ("EMULATOR_ACCOUNT", "1234", "12 digits"),
        ("EMULATOR_BILL_STARTUP", "maybe", "true or false"),
        ("EMULATOR_STATE_DIR", " ", "a text that is not empty"),
        ("EMULATOR_ANSWER_LIMIT_S", "inf", "a number from 0.01 to 3600"),
        ("EMULATOR_AUTH", "basic", "one of auto, off, sigv4"),
        ("EMULATOR_ACCESS_KEY_ID", "my/key", "`generated` or 4 to 256 letters"),
        ("EMULATOR_HOSTS", "box:8000", "host names without ports"),
        ("EMULATOR_SANDBOX", "docker", "one of auto, fork, spawn, inline"),
    ],
)
def test_a_value_that_does_not_parse_is_named_with_what_was_expected(
    variable: str, value: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(SetupError) as caught:
        read({variable: value}, tmp_path)
    text = str(caught.value)
    assert variable in text
    assert repr(value) in text
    assert expected in text


@pytest.mark.parametrize("variable", ["EMULATOR_SECRET_ACCESS_KEY", "EMULATOR_TOKEN"])
def test_a_secret_is_in_no_message_and_no_representation(variable: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"{variable} is not understood") as caught:
        read({variable: "hush hush"}, tmp_path)
    assert "hush" not in str(caught.value)
    assert "a-secret-of-mine" not in repr(read({variable: "a-secret-of-mine"}, tmp_path))


def test_a_setting_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"'keep_warm'.*docs/settings\.md"):
        read({"EMULATOR_KEEP_WARM": "1"}, tmp_path)


def test_a_settings_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nowhere\.toml"):
        read({"EMULATOR_CONFIG": str(tmp_path / "nowhere.toml")}, tmp_path)
    (tmp_path / "lukewarm.toml").write_text("region = ")
    with pytest.raises(SetupError, match=r"lukewarm\.toml"):
        read({}, tmp_path)
