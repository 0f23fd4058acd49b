"""The GLoRIA objective: its two parts, what it gathers, what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers import (
    CharTokenizer,
    TinyImages,
    TinyTexts,
    assert_same,
    batch_of,
    golden,
    info_nce_by_loop,
    two_towers,
    unit_rows,
)
from torch import Tensor
from torch.nn import functional as F

from cxrcl.models.heads import MLP, Linear
from cxrcl.objectives.gloria import Gloria
from cxrcl.objectives.local_similarity import attention_maps, pair_scores
from cxrcl.types import Batch, EmbedsImages, EmbedsText, Features, ScalesSimilarity, Text, Tokens

LOCAL = {"region_head": partial(Linear, out_dim=5, bias=False), "word_head": partial(Linear, out_dim=5)}
DISTINCT = [[1, 5, 2], [1, 6, 9, 9, 8, 2], [1, 7, 8, 2], [1, 5, 6, 7, 8, 9, 2]]
REPEATED = [DISTINCT[0], DISTINCT[1], DISTINCT[0], DISTINCT[3]]
COUNTS = torch.tensor([2, 3, 2, 4])  # of DISTINCT: [CLS], and a word for each two pieces


def gloria(dtype: torch.dtype = torch.float32, **arguments: Any) -> Gloria:
    return two_towers(Gloria, dtype, **{**LOCAL, **arguments})


def batch(ids: list[list[int]] = DISTINCT, dtype: torch.dtype = torch.float32) -> Batch:
    images = torch.randn(len(ids), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return batch_of(images.to(dtype), ids)


def embeddings(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    shapes = {"image": (4, 1, 6), "text": (4, 1, 6), "regions": (4, 7, 5), "words": (4, 8, 5)}
    return {name: unit_rows(k, *shape).to(dtype) for k, (name, shape) in enumerate(shapes.items())}


def test_golden_values_and_gradients_of_the_global_part() -> None:
    given, values = golden("gloria_global")
    unit = {name: F.normalize(value, dim=-1)[:, None] for name, value in given.items()}
    model = gloria(local_weight=0.0)
    output = model.loss({**embeddings(torch.float32), **unit}, {"counts": COUNTS})
    for name in ("image_to_text", "text_to_image"):
        assert abs(output.logs[name].item() - values[f"out_loss_{name}"]) < 1e-5
    output.loss.backward()
    for name, value in given.items():
        assert abs(value.grad.numpy() - values[f"grad_{name}"]).max() < 1e-5


@pytest.mark.parametrize("names", [None, [0, 1, 0, 0]])
def test_loss_is_the_weighted_sum_of_four_cross_entropies(names: list[int] | None) -> None:
    given = embeddings()
    settings = {"attention_scale": 3.0, "word_scale": 2.0, "aggregation": "mean"}
    model = gloria(torch.float64, scale=7.0, local_weight=0.5, global_weight=2.0, **settings)
    known = {} if names is None else {"text": torch.tensor(names)[:, None]}
    output = model.loss(given, {**known, "counts": COUNTS})

    def left_out(i: int, j: int) -> bool:
        return names is not None and names[i] == names[j]

    scale = torch.tensor(7.0, dtype=torch.float64)
    whole = info_nce_by_loop(given["image"][:, 0], given["text"][:, 0], scale, left_out)
    # Cross-entropies of a matrix S are those of its rows against unit vectors.
    scores, each = pair_scores(given["regions"], given["words"], COUNTS, **settings), torch.eye(4, dtype=torch.float64)
    to_words = info_nce_by_loop(scores, each, scale, left_out)[0]
    to_regions = info_nce_by_loop(scores.T, each, scale, left_out)[0]
    assert_same([output.loss], [2.0 * sum(whole) + 0.5 * (to_words + to_regions)], list(given.values()), within=1e-10)
    parts = {"image_to_text": whole[0], "text_to_image": whole[1]}
    parts |= {"regions_to_words": to_words, "words_to_regions": to_regions, "loss": output.loss}
    if names is not None:
        parts["equal_texts"] = torch.tensor(6 / 12)  # ordered pairs of three equal ones among four
    assert output.logs.keys() == parts.keys()
    for name, value in output.logs.items():
        assert not value.requires_grad
        assert value.item() == pytest.approx(parts[name].item(), abs=1e-10), name


def test_embeddings_are_projections_of_pooled_features_regions_and_whole_words() -> None:
    model, given = gloria(), batch()
    image, text = (
        model.image_encoder(given.images[:, 0]),
        model.text_encoder(given.text.ids[:, 0], given.text.mask[:, 0]),
    )
    found = model.embed(given)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "image": (4, 1, 6),
        "text": (4, 1, 6),
        "regions": (4, 16, 5),
        "words": (4, 7, 5),
    }
    assert torch.allclose(found["image"][:, 0], F.normalize(model.image_head(image.pooled), dim=-1), atol=1e-6)
    assert torch.allclose(found["text"][:, 0], F.normalize(model.text_head(text.pooled), dim=-1), atol=1e-6)
    assert torch.allclose(found["regions"], model.region_head(image.local), atol=1e-6)
    # The second text: [CLS], two words of two pieces, [SEP].
    words = torch.stack([text.local[1, 0], text.local[1, 1:3].sum(0), text.local[1, 3:5].sum(0)])
    assert torch.allclose(found["words"][1, :3], model.word_head(words), atol=1e-6)
    targets = model.targets(given)
    assert targets["counts"].tolist() == COUNTS.tolist()
    assert targets["counts"].device.type == "cpu"
    assert len(targets["text"].unique()) == 4


def test_features_known_before_give_the_same_embeddings() -> None:
    model, given = gloria(), batch()
    image, text = (
        model.image_encoder(given.images[:, 0]),
        model.text_encoder(given.text.ids[:, 0], given.text.mask[:, 0]),
    )
    known = Batch(None, None, given.text, given.labels, given.index)
    known.image_features = Features(*(part[:, None] for part in image))
    known.text_features = Features(*(part[:, None] for part in text))
    for name, value in model.embed(known).items():
        assert torch.allclose(value, model.embed(given)[name], atol=1e-6)


def test_embedding_is_sample_wise() -> None:
    model, given = gloria(), batch()
    parts = [model.embed(given.rows(slice(k, k + 2))) for k in (0, 2)]
    for name, value in model.embed(given).items():
        assert torch.allclose(value, torch.cat([part[name] for part in parts]), atol=1e-6)


def test_padding_of_texts_changes_neither_loss_nor_gradient() -> None:
    found = []
    for more in (0, 5):
        model, given = gloria(torch.float64), batch(dtype=torch.float64)
        ids, mask, words = given.text
        given.text = Text(F.pad(ids, (0, more), value=33), F.pad(mask, (0, more)), F.pad(words, (0, more), value=-1))
        loss = model(given).loss
        found.append((loss, torch.autograd.grad(loss, [p for n, p in model.named_parameters() if "pieces" not in n])))
    assert abs(found[0][0] - found[1][0]) < 1e-12
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.parametrize(("ids", "equal"), [(DISTINCT, True), (REPEATED, False)])
@pytest.mark.parametrize("part", ["local_weight", "global_weight"])
def test_same_text_differs_from_identity_exactly_when_a_text_repeats(part: str, ids: Any, equal: bool) -> None:
    weights = {"local_weight": 0.0, "global_weight": 0.0, part: 1.0}
    one, other = (gloria(targets=targets, **weights)(batch(ids)).loss for targets in ("identity", "same_text"))
    assert torch.equal(one, other) == equal


@pytest.mark.parametrize("weights", [{}, {"local_weight": 0.0}, {"global_weight": 0.0}])
def test_every_parameter_gets_a_gradient_and_parts_of_no_weight_one_of_zero(weights: dict[str, float]) -> None:
    model = gloria(**weights)
    model(batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    zero = {name.split(".")[0] for name, p in model.named_parameters() if not p.grad.any()}
    expected = {"local_weight": {"region_head", "word_head"}, "global_weight": {"image_head", "text_head"}}
    assert zero == (expected[next(iter(weights))] if weights else set())


def test_every_setting_changes_the_loss() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"attention_scale": 8.0},
        {"word_scale": 2.0},
        {"scale": 5.0},
        {"aggregation": "mean"},
        {"local_weight": 0.5},
        {"global_weight": 0.5},
        {"targets": "identity"},
        {"region_head": partial(MLP, out_dim=5)},
        {"word_head": partial(MLP, out_dim=5)},
    ]
    losses = [gloria(**setting)(batch(REPEATED)).loss.item() for setting in settings]
    assert all(abs(a - b) > 1e-4 for k, a in enumerate(losses) for b in losses[:k])


def test_low_memory_keeps_less_and_gives_the_same() -> None:
    found = []
    for low_memory in (False, True):
        model, kept = gloria(torch.float64, low_memory=low_memory), [0]
        values, targets = model.embed(batch(dtype=torch.float64)), model.targets(batch())
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            loss = model.loss(values, targets).loss
        found.append((sum(kept), loss, torch.autograd.grad(loss, list(model.parameters()))))
    (most, loss, grads), (least, same_loss, same_grads) = found
    assert least < most / 2
    assert torch.equal(loss, same_loss)
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(grads, same_grads, strict=True))


def test_16_bit_embeddings_are_scored_in_full_precision() -> None:
    model, given = gloria(), batch()
    targets = model.targets(given)
    rounded = {name: value.bfloat16() for name, value in model.embed(given).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = model.full_precision_loss(rounded, targets).loss
        whole = model(given)
    assert under.dtype == whole.loss.dtype == torch.float32
    assert torch.equal(under, model.loss({name: value.float() for name, value in rounded.items()}, targets).loss)
    assert whole.loss.item() == pytest.approx(model(given).loss.item(), rel=0.05)
    whole.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_chance_is_the_loss_of_a_model_that_gives_everything_the_same() -> None:
    same = {name: torch.ones_like(value) / 5 for name, value in embeddings().items()}
    model = gloria(local_weight=0.5, global_weight=2.0, targets="identity")
    counts = torch.full((4,), 3)
    assert model.loss(same, {"counts": counts}).loss.item() == pytest.approx(model.chance(4), abs=1e-9)
    assert model.chance(4) == pytest.approx(5 * math.log(4))


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="two samples or more"):
        gloria()(batch(DISTINCT[:1]))


def test_attention_of_words_in_their_own_image() -> None:
    model, given = gloria(attention_scale=6.0), batch()
    maps = model.attention(given.images[:, 0], given.text)
    found = model.embed(given)
    assert maps.shape == (4, 7, 16)
    assert not maps.requires_grad
    assert torch.allclose(maps, attention_maps(found["regions"], found["words"], COUNTS, 6.0), atol=1e-6)
    filled = torch.arange(7) < COUNTS[:, None]
    assert torch.allclose(maps.sum(dim=2), filled.float(), atol=1e-6)


@pytest.mark.parametrize("change", [{"attention_scale": 8.0}, {"word_scale": 2.0}])
def test_words_are_matched_at_the_scales_of_the_training(change: dict[str, float]) -> None:
    found = []
    for model in (gloria(), gloria(**change)):
        words, counts = model.embed_words(*(part[:, 0] for part in batch().text))
        found.append(model.match_words(model.encode_images(batch().images[:, 0]), words, counts))
    assert found[0].shape == (4, 4)
    several = found[0][:, COUNTS > 2] - found[1][:, COUNTS > 2]  # one word alone is everywhere, whatever the scale
    assert several.abs().min() > 1e-3


def test_embeds_both_sides_and_tells_its_scale() -> None:
    model = gloria(scale=8.0)
    assert isinstance(model, EmbedsImages) and isinstance(model, EmbedsText) and isinstance(model, ScalesSimilarity)
    assert model.similarity_scale() == 8.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"word_head": partial(Linear, out_dim=4)}, r"region_head.out_dim=5 and word_head.out_dim=4 differ"),
        ({"local_weight": 0.0, "global_weight": 0.0}, "local_weight=0, global_weight=0: expected one above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gloria(**wrong)


def test_an_image_encoder_without_local_features_is_refused() -> None:
    encoder = TinyImages()
    encoder.local_dim = 0
    with pytest.raises(ValueError, match=r"image_encoder: TinyImages gives no local features \(local_dim=0\)"):
        gloria(image_encoder=encoder)


class NoOpening(CharTokenizer):
    """Texts that begin with their first word, as those of GPT-like encoders without a start piece."""

    def __call__(self, texts: Sequence[str]) -> Tokens:
        return Tokens(*([row[1:] for row in part] for part in super().__call__(texts)))


def test_a_tokenizer_whose_texts_begin_with_a_word_is_refused() -> None:
    encoder = TinyTexts(width=12)
    gloria(text_encoder=encoder)
    encoder.tokenizer = NoOpening()
    with pytest.raises(ValueError, match=r"text_encoder: its texts do not begin with a special token such as \[CLS\]"):
        gloria(text_encoder=encoder)
