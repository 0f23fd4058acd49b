"""Images with the texts that a model finds for them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cxrcl.evaluation.evaluator import Evaluators
from cxrcl.evaluation.examples import SIDE, choose, grey_png
from cxrcl.evaluation.retrieval import Retrieval

BOTH = ("valid", "test")


def test_right_and_wrong_ones_are_chosen_by_seed() -> None:
    ranks = np.array([1, 5, 1, 2, 1, 9, 1, 1])
    chosen = choose(ranks, 4)
    assert [ranks[k] == 1 for k in chosen] == [True, True, False, False] and chosen == choose(ranks, 4)
    assert any(choose(ranks, 4, seed) != chosen for seed in range(1, 5))
    assert len(set(choose(ranks, 8))) == 8 and len(choose(ranks, 20)) == 8 and choose(ranks, 0) == []
    assert sorted(choose(np.array([1, 1, 1, 2]), 4)) == [0, 1, 2, 3]  # too few are wrong: more right ones


def test_an_image_becomes_a_grey_picture() -> None:
    film = torch.linspace(-2.1, 2.6, 300 * 400).reshape(300, 400)
    shown = Image.open(io.BytesIO(grey_png(film)))
    assert shown.mode == "L" and max(shown.size) == SIDE
    small = torch.tensor([[0.5, -1.0], [2.0, 0.5]])
    assert np.asarray(Image.open(io.BytesIO(grey_png(small)))).tolist() == [[128, 0], [255, 128]]
    assert np.asarray(Image.open(io.BytesIO(grey_png(torch.ones(2, 2))))).tolist() == [[0, 0], [0, 0]]


def test_examples_are_the_images_their_texts_and_the_nearest(known: Any, data: Any, alone: Any) -> None:
    result = Evaluators({"it": Retrieval(data, splits=BOTH)}, data, 3)(known, alone)["it"]
    examples = result.artifacts["examples"](10)
    images, names = torch.cat([data.splits[s][0] for s in BOTH]), data.column("valid", "") + data.column("test", "")
    texts = [text for split in BOTH for text in data.texts(split)]
    films = known.embed_images(known.encode_images(images))
    assert len(examples) == 5  # two films have no text
    own = [k for k, text in enumerate(texts) if text]
    for one in examples:
        shown = np.asarray(Image.open(io.BytesIO(one.png))).astype(float)
        (k,) = [
            k
            for k in own
            if one.image == names[k]
            and one.text == texts[k]
            and np.corrcoef(shown.ravel(), images[k, 0].ravel().numpy())[0, 1] > 0.999
        ]
        cosines = {text: float(films[k] @ known.text(text)) for text in dict.fromkeys(texts) if text}
        assert one.similarity == pytest.approx(cosines[one.text], abs=1e-5)
        assert one.rank == sorted(cosines.values(), reverse=True).index(cosines[one.text]) + 1
        assert [text for text, _ in one.retrieved] == sorted(cosines, key=lambda text: -cosines[text])[:3]
        assert [value for _, value in one.retrieved] == pytest.approx(sorted(cosines.values())[::-1][:3], abs=1e-5)
    assert np.mean([one.rank for one in examples]) == pytest.approx(result.metrics["image_to_text/mean_rank"])
