import argparse

import pytest
from huggingface_hub import ModelCard

from diffretouch.training.model_card import Repository, model_card, open_repository, push


def settings(**others):
    given = {"train_batch_size": 3, "gradient_accumulation_steps": 2, "max_train_steps": 9, "output_dir": "runs/mine/"}
    hub = {"push_to_hub": True, "hub_model_id": None, "hub_private": True, "hub_token": None}
    return argparse.Namespace(**given, **hub, **others)


def test_says_what_was_done():
    args = settings(learning_rate=1e-3, expert=None, rendering="a|b")
    text = model_card(args, steps=4, data={"photos": 7}, losses={"pixel": 0.25}, figures={"slope/contrast": 0.9},
                      processes=2, parameters=12345, frozen=678)  # fmt: skip
    card = ModelCard(text)
    assert card.data.library_name == "diffusers" and "photo-retouching" in card.data.tags
    for said in ("4 of 9 steps of 12 pairs", "12,345 parameters (678 of them", '"photos": 7', "| pixel | 0.25 |",
                 "| slope/contrast | 0.900 |", "| `learning_rate` | 0.001 |", "a\\|b", "torch "):  # fmt: skip
        assert said in text
    assert "`expert`" not in text


def test_without_the_hub(monkeypatch, tmp_path, capsys):
    """Offline: before a training it is an error, after one the model is not lost for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert open_repository(argparse.Namespace(push_to_hub=False)) is None
    with pytest.raises(SystemExit, match="--push_to_hub.*mine"):
        open_repository(settings())
    push(Repository("someone/mine"), tmp_path, 3)
    assert "someone/mine was not reached" in capsys.readouterr().err
