from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genseg_monai.errors import UserError
from genseg_monai.inferers.generator_files import GeneratorShape, load_generator, save_generator
from genseg_monai.networks.generator import SearchableGenerator

SHAPE = GeneratorShape(2, in_channels=2, out_channels=1, image_size=(16, 16), base_width=2, activation="relu")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    searched = SearchableGenerator(2, 2, 1, (16, 16), base_width=2, depth=2, space="wide", activation="relu")
    save_generator(tmp_path, searched.discretise(), searched.derive(), SHAPE)
    return tmp_path


def test_what_was_searched_comes_back(tmp_path: Path) -> None:
    searched = SearchableGenerator(2, 2, 1, (16, 16), base_width=2, depth=2, activation="relu")
    derived = searched.discretise().eval()
    save_generator(tmp_path, derived, searched.derive(), SHAPE)
    masks = torch.rand(1, 2, 16, 16)
    loaded = load_generator(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(masks), derived(masks))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generator.json", "generator.pt"]


@pytest.mark.parametrize("name", ["generator.json", "generator.pt"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"nothing", b"[1]"])
def test_missing_or_damaged_files_are_named(saved: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (saved / name).unlink()
    else:
        (saved / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_generator(saved)


def test_weights_of_another_generator(saved: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, saved / "generator.pt")
    with pytest.raises(UserError, match="wanted the weights of the generator beside it"):
        load_generator(saved)
