"""Similarities of images and groups of sentences."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TinyImages, TinyTexts

from cxrcl.evaluation.embed import embed_texts
from cxrcl.evaluation.prompted import Prompted, directions_of
from cxrcl.evaluation.shared_pass import SharedPass
from cxrcl.models.heads import Linear
from cxrcl.objectives.gloria import Gloria

GROUPS = [["a large heart", "cardiomegaly"], ["edema"], ["no large heart", "clear", "the heart is small"]]
SPLITS = ("valid",)


def of(prompted: Prompted, model: Any, runtime: Any, data: Any, batch_size: int = 3) -> np.ndarray:
    shared = SharedPass(model, runtime, data, batch_size, prompted.requests(model, runtime.device, SPLITS))
    with torch.no_grad():
        return prompted.similarity(shared, SPLITS).numpy()


@pytest.fixture
def gloria() -> Gloria:
    torch.manual_seed(0)
    head = partial(Linear, out_dim=6)
    return Gloria(TinyImages(), TinyTexts(), head, head, head, head).eval()


@pytest.fixture
def films(data: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    _, labels, texts, patients = data.splits["valid"]
    data.splits["valid"] = (torch.randn(4, 3, 16, 16, generator=generator), labels, texts, patients)
    return data


def test_an_ensemble_of_one_sentence_repeated_is_that_sentence(known: Any, alone: Any) -> None:
    (found,) = directions_of(lambda texts: embed_texts(known, texts, alone.device), [["edema", "edema"]])
    assert torch.allclose(found, known.text("edema"), atol=1e-6)


def test_similarities_stay_in_fp32_under_autocast(known: Any, data: Any, alone: Any) -> None:
    prompted = Prompted(GROUPS, "mean")
    expected = of(prompted, known, alone, data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(of(prompted, known, alone, data), expected)


def test_local_similarity_is_the_best_words_cosine_with_its_context(gloria: Gloria, films: Any, alone: Any) -> None:
    """Published inference code: per word the attended context, the largest of word_scale x cosine over real words."""
    found = of(Prompted(GROUPS, "max", "local"), gloria, alone, films)
    expected = np.empty((4, 3))
    with torch.no_grad():
        for i, image in enumerate(films.splits["valid"][0]):
            regions = gloria.region_head(gloria.image_encoder(image[None]).local)[0].double()
            for g, group in enumerate(GROUPS):
                similarities = []
                for sentence in group:
                    ids, mask, places = (torch.tensor(part) for part in gloria.tokenizer([sentence]))
                    pieces = gloria.text_encoder(ids, mask).local[0]
                    merged = [pieces[places[0] == w].sum(dim=0) for w in range(int(places.max()) + 1)]
                    words = gloria.word_head(torch.stack(merged)).double()
                    attention = (regions @ words.T).softmax(dim=1)
                    attention = (gloria.attention_scale * attention).softmax(dim=0)
                    context = attention.T @ regions
                    cosines = torch.nn.functional.cosine_similarity(context, words, dim=1)
                    similarities.append(gloria.word_scale * float(cosines.max()))
                expected[i, g] = max(similarities)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_is_the_mean_of_global_and_local(gloria: Gloria, films: Any, alone: Any) -> None:
    single = [group[:1] for group in GROUPS]
    parts = [of(Prompted(single, "max", by), gloria, alone, films) for by in ("global", "local", "both")]
    np.testing.assert_allclose(parts[2], (parts[0] + parts[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("by", ["global", "local", "both"])
def test_an_image_has_one_similarity_alone_and_among_others(gloria: Gloria, films: Any, alone: Any, by: Any) -> None:
    prompted = Prompted(GROUPS, "max", by)
    np.testing.assert_allclose(of(prompted, gloria, alone, films, 1), of(prompted, gloria, alone, films, 4), atol=1e-5)


def test_words_of_more_sentences_than_fit_into_one_pass(gloria: Gloria, films: Any, alone: Any) -> None:
    many = [[f"finding {k}" for k in range(70)], ["finding 3"]]
    found = of(Prompted(many, "mean", "local"), gloria, alone, films)
    each = np.stack([of(Prompted([[s]], "mean", "local"), gloria, alone, films)[:, 0] for s in many[0][:70:23]], axis=1)
    assert found.shape == (4, 2) and each.min() - 1e-5 <= found.min() and np.ptp(found) < 10
    np.testing.assert_allclose(
        found[:, 1], of(Prompted([["finding 3"]], "max", "local"), gloria, alone, films)[:, 0], atol=1e-5
    )


def test_a_prompt_without_words_is_refused(gloria: Gloria) -> None:
    ids = torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match="without words"):
        gloria.embed_words(ids, torch.ones_like(ids), torch.full_like(ids, -1))
