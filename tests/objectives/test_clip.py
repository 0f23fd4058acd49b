"""CLIP against its formula."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_same, batch_of, info_nce_by_loop, two_towers, unit_rows
from torch.nn import functional as F

from cxrcl.objectives.clip import Clip


@pytest.mark.parametrize("names", [None, [0, 1, 2, 1, 0, 5]])
def test_loss_is_the_mean_of_both_directions(names: list[int] | None) -> None:
    model, image, text = two_towers(Clip, torch.float64), unit_rows(1, 6, 1, 6), unit_rows(2, 6, 1, 6)
    known = {} if names is None else {"text": torch.tensor(names)[:, None]}
    output = model.loss({"image": image, "text": text}, known)
    slow = info_nce_by_loop(
        image[:, 0], text[:, 0], model.log_scale.exp(), lambda i, j: names is not None and names[i] == names[j]
    )
    assert_same([output.loss], [sum(slow) / 2], (image, text, model.log_scale), within=1e-10)
    for name, value in zip(("image_to_text", "text_to_image"), slow, strict=True):
        assert abs(output.logs[name] - value) < 1e-10
    assert output.logs["scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)


def test_the_whole_way_from_images_and_texts() -> None:
    model = two_towers(Clip, targets="identity")
    ids = [[1, 5, 2], [1, 6, 2], [1, 7, 8, 2], [1, 5, 6, 2]]
    given = batch_of(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)), ids)
    image = model.image_head(model.image_encoder(given.images[:, 0]).pooled)
    text = model.text_head(model.text_encoder(given.text.ids[:, 0], given.text.mask[:, 0]).pooled)
    cosines = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    own = torch.arange(4)
    expected = (F.cross_entropy(cosines / 0.07, own) + F.cross_entropy(cosines.T / 0.07, own)) / 2
    assert model(given).loss.item() == pytest.approx(expected.item(), abs=1e-6)
