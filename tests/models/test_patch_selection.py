"""Top-K patch selection against explicit loops, and whether the scorer learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import PACKAGES, TinyImages
from torch import Tensor, nn
from torch.nn import functional as F

from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import build
from cxrcl.errors import ConfigError
from cxrcl.models.base import ImageEncoder
from cxrcl.models.image import TimmEncoder
from cxrcl.models.patch_selection import PatchScorer, TopKPatches, best_patches, combine_patches
from cxrcl.models.vit import ConvStemViT

MODES = ["mean", "weighted_mean", "concat", "soft"]
VIT = {"_target_": "cxrcl.models.vit.ConvStemViT", "size": 32, "width": 16, "depth": 1, "heads": 2}


def top(num_patches: int | None = 3, combine: Any = "weighted_mean", **arguments: Any) -> TopKPatches:
    """Over 16 patches of 8 numbers."""
    torch.manual_seed(0)
    count = None if combine == "soft" else num_patches
    return TopKPatches(TinyImages, count, combine, **{"hidden_dim": 6, **arguments})


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def patches() -> tuple[Tensor, Tensor]:
    """float64 local features [2, 7, 5] and scores [2, 7] that wait for gradients."""
    torch.manual_seed(2)
    return torch.randn(2, 7, 5, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64, requires_grad=True)


# ---------------------------------------------------------------------------------------------------- combining


def test_the_best_come_first_and_the_earlier_leads_a_tie() -> None:
    assert best_patches(torch.tensor([[1.0, 5.0, 5.0, 7.0, -1.0]]), 4).tolist() == [[3, 1, 2, 0]]
    assert best_patches(torch.zeros(1, 300), 300).tolist() == [list(range(300))]


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("combine", MODES)
def test_combining_is_what_its_name_says(combine: Any, count: int) -> None:
    local, scores = patches()
    count = 7 if combine == "soft" else count
    combined = combine_patches(local, scores, count, combine)
    for row in range(2):
        order = sorted(range(7), key=lambda place: -scores[row, place].item())[:count]
        best = [local[row, place] for place in order]
        if combine == "concat":
            expected = torch.cat([scores[row, place].sigmoid() * x for place, x in zip(order, best, strict=True)])
        elif combine == "mean":
            gated = [scores[row, place].sigmoid() * x for place, x in zip(order, best, strict=True)]
            expected = sum(gated, torch.zeros(5)) / count
        else:
            exponents = [scores[row, place].exp() for place in order]
            expected = sum(w / sum(exponents) * x for w, x in zip(exponents, best, strict=True))
        assert (combined[row] - expected).abs().max() < 1e-12


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("combine", ["mean", "weighted_mean", "concat"])
def test_attention_over_all_patches_lends_its_gradient(combine: Any, count: int) -> None:
    """The same gradient as that of a sum that is written out, also for the patches that were left out."""
    local, scores = patches()
    combined = combine_patches(local, scores, count, combine)
    upstream = torch.randn(combined.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((combined * upstream).sum(), scores)
    terms = []
    for row in range(2):
        for k, place in enumerate(scores[row].argsort(descending=True)[:count]):
            attention, gate = scores[row].softmax(dim=0)[place], scores[row, place].sigmoid()
            weight = {"weighted_mean": attention, "concat": gate + 7 * attention}.get(
                combine, (gate + 7 * attention) / count
            )
            terms.append(weight * (local[row, place] @ upstream[row].view(-1, 5)[k if combine == "concat" else 0]))
    (expected,) = torch.autograd.grad(torch.stack(terms).sum(), scores)
    assert torch.allclose(found, expected) and (found.abs() > 1e-9).all()


@pytest.mark.parametrize("combine", MODES)
def test_local_features_get_the_gradient_of_the_forward_weights(combine: Any) -> None:
    local, scores = patches()
    local.requires_grad_()
    count = 7 if combine == "soft" else 3
    combine_patches(local, scores, count, combine).sum().backward()
    assert local.grad is not None
    chosen = scores.topk(count)
    weights = chosen.values.softmax(1) if combine in ("weighted_mean", "soft") else chosen.values.sigmoid()
    expected = torch.zeros(2, 7, dtype=torch.float64).scatter(1, chosen.indices, weights)
    assert torch.allclose(local.grad, expected[..., None].expand(-1, -1, 5) / (3 if combine == "mean" else 1))


def test_all_patches_by_weighted_mean_are_soft_attention_exactly() -> None:
    soft, weighted = top(combine="soft"), top(None)
    assert torch.equal(soft(images()).pooled, weighted(images()).pooled)
    assert soft.selected(images()).shape == weighted.selected(images()).shape == (2, 16)


def test_all_patches_by_weighted_mean_have_the_true_gradient() -> None:
    local, scores = patches()
    assert torch.autograd.gradcheck(lambda x, s: combine_patches(x, s, 7, "soft"), (local.requires_grad_(), scores))


def test_equal_scores_make_all_patches_the_plain_mean() -> None:
    local, equal = patches()[0], torch.full((2, 7), 3.0)
    assert torch.allclose(combine_patches(local, equal, 7, "soft"), local.mean(dim=1))
    assert torch.allclose(combine_patches(local, equal, 7, "mean"), local.mean(dim=1) * equal[0, 0].sigmoid())


# --------------------------------------------------------------------------------------------------- the encoder


@pytest.mark.parametrize(("combine", "dim"), [("mean", 8), ("weighted_mean", 8), ("concat", 24), ("soft", 8)])
@pytest.mark.parametrize("include_pooled", [False, True])
def test_features_have_their_dims_and_local_ones_are_the_encoders(combine: str, dim: int, include_pooled: bool) -> None:
    encoder = top(3, combine, include_pooled=include_pooled)
    pooled, local = encoder(images())
    own = encoder.encoder(images())
    assert pooled.shape == (2, encoder.dim) and encoder.dim == dim + 8 * include_pooled
    assert torch.equal(local, own.local) and encoder.local_dim == 8
    assert encoder.spec == encoder.encoder.spec
    if include_pooled:
        assert torch.equal(pooled[:, :8], own.pooled)
    expected = combine_patches(own.local, encoder.scores(images()), 16 if combine == "soft" else 3, encoder.combine)
    assert torch.equal(pooled[:, -dim:], expected)


def test_the_score_is_linear_relu_linear() -> None:
    scorer = PatchScorer(8, 128)
    first, bias, second = scorer.parameters()
    assert first.shape == (128, 8) and second.shape == (1, 128)
    local = torch.randn(2, 5, 8)
    assert torch.allclose(scorer(local), (F.relu(local @ first.T + bias) @ second.T)[..., 0], atol=1e-6)
    assert next(top(hidden_dim=9).scorer.parameters()).shape == (9, 8)


def test_selected_patches_are_those_of_the_highest_scores() -> None:
    encoder = top(4, "concat")
    scores, selected = encoder.scores(images()), encoder.selected(images())
    assert scores.shape == (2, 16) and scores.dtype == torch.float32
    assert selected.shape == (2, 4) and selected.dtype == torch.int64
    assert torch.equal(selected, scores.topk(4).indices)
    pooled, local = encoder(images())
    for row in range(2):
        gates = scores[row, selected[row], None].sigmoid()
        assert torch.equal(pooled[row].view(4, 8), gates * local[row, selected[row]])


@pytest.mark.parametrize(("combine", "count"), [(mode, count) for mode in MODES for count in (1, 3)])
def test_gradients_reach_every_parameter(combine: str, count: int) -> None:
    torch.manual_seed(0)
    num_patches = None if combine == "soft" else count
    encoder = TopKPatches(lambda: ConvStemViT(32, 16, 2, 2), num_patches, combine)  # type: ignore[arg-type]
    (encoder(images(32)).pooled ** 3).sum().backward()
    idle = [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    assert idle == []


def share_found(combine: Any, count: int, seed: int) -> float:
    """Train on pictures of 16 cells: red is the answer in the cell that blue marks, and misleads in all others."""
    torch.manual_seed(seed)
    encoder = TopKPatches(lambda: TinyImages(width=16), count, combine)
    readout = nn.Linear(encoder.dim, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *readout.parameters()], lr=1e-2)
    for _ in range(300):
        answers, places = torch.randn(64), torch.randint(16, (64,))
        cells = torch.randn(64, 3, 16) * torch.tensor([1.0, 0.0, 0.0])[:, None]
        cells[torch.arange(64), :, places] = torch.stack([answers, torch.zeros(64), torch.ones(64)], dim=1)
        pictures = F.interpolate(cells.view(64, 3, 4, 4), scale_factor=4)
        loss = F.mse_loss(readout(encoder(pictures).pooled)[:, 0], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (encoder.selected(pictures) == places[:, None]).any(dim=1).float().mean().item()


@pytest.mark.parametrize(("combine", "count", "seed"), [("mean", 1, 1), ("weighted_mean", 2, 3), ("concat", 2, 1)])
def test_the_scorer_learns_to_find_the_patch_that_tells(combine: str, count: int, seed: int) -> None:
    """From these seeds it finds none when attention does not lend its gradient; by chance it finds a tenth."""
    assert share_found(combine, count, seed) > 0.6


def test_scores_stay_float32_under_autocast() -> None:
    encoder = top(3)
    expected = encoder(images()).pooled
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder.encoder(images()).local.dtype == torch.bfloat16
        scores, pooled = encoder.scores(images()), encoder(images()).pooled
    assert scores.dtype == torch.float32 and (pooled - expected).abs().max() < 0.05
    assert not torch.equal(scores, scores.bfloat16().float())


# -------------------------------------------------------------------------------------------------- construction


def test_construction_leaves_statistics_gradients_and_mode_alone() -> None:
    encoder = TopKPatches(lambda: TinyImages(norm=True), 3).encoder
    assert encoder.norm.num_batches_tracked == 0 and encoder.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("include_pooled", [False, True])
def test_parameters_of_the_pooled_features_alone_are_frozen_unless_these_are_included(include_pooled: bool) -> None:
    encoder = TopKPatches(lambda: TimmEncoder("test_convnext", size=64), 2, include_pooled=include_pooled)
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    last = ["encoder.model.head.norm.weight", "encoder.model.head.norm.bias"]
    assert frozen == ([] if include_pooled else last)


def test_a_frozen_encoder_stays_frozen() -> None:
    encoder = TopKPatches(lambda: TinyImages().requires_grad_(False), 3)
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == [
        f"scorer.layers.{name}" for name in ("0.weight", "0.bias", "2.weight")
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_patches": 17}, "num_patches=17: the encoder has 16 patches, set num_patches to at most 16"),
        ({"num_patches": 17, "combine": "concat"}, "num_patches=17: the encoder has 16 patches"),
        ({"num_patches": 3, "combine": "soft"}, "combine=soft weighs all patches, set num_patches=null"),
    ],
)
def test_settings_that_do_not_fit_are_errors(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TopKPatches(TinyImages, **arguments)


def test_images_of_another_size_keep_the_width() -> None:
    assert top(16).dim == 8 and top(None, "concat").dim == 16 * 8
    for combine in ("mean", "concat"):
        encoder = top(None, combine)
        assert encoder(images(24)).pooled.shape == (2, encoder.dim)
    with pytest.raises(ValueError, match="num_patches=16: the encoder has 9 patches"):
        top(None, "concat")(images(12))


# ------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(("combine", "num_patches"), [("mean", 2), ("concat", None), ("soft", None)])
def test_a_node_rebuilds_the_encoder_and_the_one_inside(combine: str, num_patches: int | None) -> None:
    node = {"_target_": "cxrcl.models.patch_selection.TopKPatches", "encoder": VIT, "hidden_dim": 5}
    node |= {"combine": combine, "num_patches": num_patches, "include_pooled": True}
    encoder = build(node, ImageEncoder, "image_encoder")
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    again = build(encoder.node(), ImageEncoder, "image_encoder").eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(images(32)).pooled, encoder.eval()(images(32)).pooled)
    assert again.node() == encoder.node() == {**node, "encoder": ConvStemViT(32, 16, 1, 2).node()}


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({**VIT, "hedas": 2}, "image_encoder.encoder.hedas: ConvStemViT has no such setting"),
        ({**VIT, "stride": 7}, "image_encoder.encoder.stride=7"),
        ({**VIT, "heads": 3}, "image_encoder: width=16 is not divisible by heads=3"),
        ({"_target_": "cxrcl.models.image.TimmEncoder"}, "image_encoder: encoder: missing a required argument: 'name'"),
        ({"_target_": "cxrcl.models.heads.Linear"}, "image_encoder.encoder._target_=.*: not an ImageEncoder"),
    ],
)
def test_faults_of_the_encoder_inside(inner: dict[str, Any], said: str) -> None:
    node = {"_target_": "cxrcl.models.patch_selection.TopKPatches", "encoder": inner}
    with pytest.raises(ConfigError, match=said):
        build(node, ImageEncoder, "image_encoder")


def test_the_encoder_inside_is_chosen_and_set_on_the_command_line() -> None:
    inside = "image_encoder@image_encoder.encoder=small_resnet"
    values = compose("train", ["image_encoder=vit_convstem_topk", inside, "image_encoder.encoder.size=64"])
    node = {**values["image_encoder"], "num_patches": 4}
    encoder = build(node, ImageEncoder, "image_encoder", packages=PACKAGES)
    assert isinstance(encoder, TopKPatches) and isinstance(encoder.encoder, TimmEncoder)
    assert encoder.selected(images(64)).shape == (2, 4) and encoder.spec.size == 64
