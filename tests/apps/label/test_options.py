"""What an annotator may change, from the client to the ids of the config."""

from __future__ import annotations

import pytest

from genseg_monai.apps.label.options import count, extended_plan, share, switch, training_ids, training_options
from genseg_monai.errors import UserError


def test_the_defaults_as_a_client_echoes_them_change_nothing_but_the_baselines() -> None:
    assert training_ids(training_options("unet"), "unet") == {"segmenter": "unet", "baselines": []}


def test_what_is_not_sent_has_its_default() -> None:
    assert training_ids({}, "unet_small") == training_ids(training_options("unet_small"), "unet_small")


@pytest.mark.parametrize("size", ["32,48,32", "[32, 48, 32]", "32 x 48 x 32", [32, 48, 32]])
def test_the_size_as_it_may_be_typed(size: object) -> None:
    assert training_ids({"size": size}, "unet")["size"] == [32, 48, 32]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("budget", "soon", "wanted a time such as 90s"),
        ("size", "30,30", "multiples of 16"),
        ("size", "large", "multiples of 16"),
        ("segmenter", "nnunet_of_mine", "wanted one of"),
        ("search", "maybe", "wanted true or false"),
        ("compare", "maybe", "wanted true or false"),
    ],
)
def test_what_means_nothing_is_told(option: str, value: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        training_ids({option: value}, "unet")


def test_switches_as_clients_send_them() -> None:
    assert [switch(value, "x") for value in (True, "true", "True", 1, "1")] == [True] * 5
    assert [switch(value, "x") for value in (False, "false", 0)] == [False] * 3


def test_numbers_as_clients_send_them() -> None:
    assert [count(value, "x") for value in (3, "3", 3.0, " 3 ")] == [3] * 4
    assert [share(value, "x") for value in (0.25, "0.25", 0, -1)] == [0.25, 0.25, 0, 0]


@pytest.mark.parametrize("value", [0, -1, "x", None, 2.5, True, "", float("inf")])
def test_what_counts_nothing_is_told(value: object) -> None:
    with pytest.raises(UserError, match=r"candidates: wanted a whole number from 1 on, got"):
        count(value, "candidates")


@pytest.mark.parametrize("value", [1, 2.0, "x", None, float("nan"), [0.2]])
def test_what_is_no_share_is_told(value: object) -> None:
    with pytest.raises(UserError, match=r"val_split: wanted a share below 1, such as 0.2, got"):
        share(value, "val_split")


def test_a_search_is_switched_on_where_the_bundle_has_none() -> None:
    assert training_options("unet", 0)["search"] is False
    assert "outer_every" not in training_ids({}, "unet", 0)
    assert training_ids({"search": True}, "unet", 0)["outer_every"] == 4
    assert "outer_every" not in training_ids({"search": True}, "unet", 2)


def test_a_plan_goes_on_with_new_classes_and_another_size() -> None:
    held = {"spatial_dims": 2, "classes": ["background", "cell"], "label_values": {0: 0, 255: 1}, "size": [64, 64]}
    assert extended_plan(held, [255, 0]) == held
    told = extended_plan(held, [3, 0, 2], [32, 48])
    assert told["label_values"] == {0: 0, 255: 1, 2: 2, 3: 3}
    assert (told["classes"], told["size"]) == (["background", "cell", "class_2", "class_3"], [32, 48])
    with pytest.raises(UserError, match="size: wanted 2 numbers, one an axis of the images, got"):
        extended_plan(held, [0], [32, 32, 32])
