"""What `hydra_errors` reads out of Hydra's errors is there in the pinned Hydra: each rule meets the error itself."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from cxrcl.commands.entry import config_folder
from cxrcl.commands.hydra_errors import hydra_line, omegaconf_line


def refused(override: str) -> Exception:
    """What Hydra itself raises."""
    with (
        initialize_config_dir(str(config_folder()), version_base="1.3"),
        pytest.raises((HydraException, ValueError)) as caught,
    ):
        compose("train", [override])
    return caught.value


@pytest.mark.parametrize(
    ("override", "english", "line"),
    [
        ("tariner.seed=3", "Could not override 'tariner.seed'", "tariner.seed: no such setting"),
        ("seed=1,2", "Ambiguous value for argument 'seed=1,2'", "'seed=1,2' is not an override"),
        ("transform=null", "Config group override must be", "a group takes the name of one of its files"),
        ("=3", "Config group override must be", "a group takes the name of one of its files"),
    ],
)
def test_rules_that_read_english(clean_hydra: None, override: str, english: str, line: str) -> None:
    error = refused(override)
    assert str(error).startswith(english)
    assert hydra_line("train", error, [override]).startswith(line)


@pytest.mark.parametrize(
    "override", ["foo", "a/b.pt", "seed==3", "data.views=[PA", "run_dir='", "x={1:2", "a@b@c=1", "+", "x=unknown(1)"]
)
def test_what_is_no_override_is_shown_whole(clean_hydra: None, override: str) -> None:
    """The parser's own words name a part, in six ways; the exception has the whole."""
    error = refused(override)
    assert isinstance(error, OverrideParseException)
    assert hydra_line("train", error, [override]).startswith(f"{override!r} is not an override: write key=value")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("objective=clop", "objective=clop: no such option (did you mean `clip`?); options: classify, clip, "),
        ("evals=[zeroshot]", "evals=zeroshot: no such option (did you mean `zero_shot`?); options: "),
    ],
)
def test_a_file_that_is_missing_is_named_by_the_exception(clean_hydra: None, override: str, line: str) -> None:
    error = refused(override)
    assert isinstance(error, MissingConfigException)
    assert hydra_line("train", error, [override]).startswith(line)


def test_a_mandatory_value_is_known_by_its_exception() -> None:
    with pytest.raises(MissingMandatoryValue) as missing:
        OmegaConf.to_container(OmegaConf.create({"a": {"b": "???"}}), throw_on_missing=True)
    assert omegaconf_line(missing.value) == "a.b: has to be set: a.b=..."
    with pytest.raises(OmegaConfBaseException) as other:
        OmegaConf.to_container(OmegaConf.create({"seed": "${nothing}"}), resolve=True)
    assert omegaconf_line(other.value).startswith("seed: Interpolation key 'nothing' not found")
