"""The towers of open_clip models against open_clip itself, with the network refused."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import builders
import open_clip
import pytest
import torch
from builders import (
    CLIP,
    DEFINITION,
    PLAIN_TEXT,
    SENTENCES,
    VIT,
    features,
    gradients,
    pictures,
    rewrite,
    save_open_clip,
    tensors,
    unused,
)
from builders import OPEN_CLIP_WEIGHTS as WEIGHTS
from safetensors.torch import load_file, save_file

from cxrcl.commands.hydra import compose
from cxrcl.config.nodes import build
from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.open_clip import OpenClipImage, OpenClipText
from cxrcl.models.tokenizer import vocabulary_size

RESNET = {**CLIP, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}}
# SigLIP's way to read a text: no causal mask, so that the padding counts.
BOTH_WAYS = {**CLIP, "text_cfg": {**PLAIN_TEXT, "no_causal_mask": True, "pool_type": "last"}}
# BiomedCLIP's shape: a ViT of timm, a BERT whose embedding goes through an MLP.
BERT = {
    "hf_model_name": "nowhere/no-bert",
    "hf_tokenizer_name": "nowhere/no-bert",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "cls_last_hidden_state_pooler",
    "context_length": 30,
}
TIMM = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
BIOMED = {"embed_dim": 24, "vision_cfg": TIMM, "text_cfg": BERT}
BERT_SIZES = {"hidden_size": 128, "num_attention_heads": 2}  # heads 64 wide


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    builders.refuse_network(monkeypatch)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    bert = tmp_path_factory.mktemp("bert")
    builders.save_text(bert, **BERT_SIZES)
    found = {}
    for name, config in (("clip", CLIP), ("both_ways", BOTH_WAYS), ("resnet", RESNET), ("biomed", BIOMED)):
        folder = tmp_path_factory.mktemp(name)
        found[name] = (folder, save_open_clip(folder, config, bert if name == "biomed" else None))
    return found


@pytest.fixture
def own(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> Path:
    """A copy of the small CLIP's folder."""
    for file in models["clip"][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# ------------------------------------------------------------------------------------- equality with open_clip


@pytest.mark.parametrize("name", ["clip", "resnet", "biomed"])
def test_image_embeddings_are_open_clips(models: dict[str, tuple[Path, Any]], name: str) -> None:
    folder, model = models[name]
    encoder = OpenClipImage(str(folder)).eval()
    images = pictures(encoder.spec.size)
    with torch.no_grad():
        pooled, local = encoder(images)
        assert (pooled - model.encode_image(images)).abs().max() < 1e-5
        grid = model.visual.forward_intermediates(images, 1, normalize_intermediates=True)["image_intermediates"][0]
    assert (local - grid.flatten(2).transpose(1, 2)).abs().max() < 1e-5
    assert (encoder.dim, encoder.local_dim) == (pooled.shape[1], local.shape[2])
    assert (encoder.spec.mean, encoder.spec.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert str(encoder.load_report) == f"{len(model.visual.state_dict())} tensors matched"


@pytest.mark.parametrize("name", ["clip", "both_ways", "biomed"])
def test_text_embeddings_are_open_clips(models: dict[str, tuple[Path, Any]], name: str) -> None:
    folder, model = models[name]
    encoder = OpenClipText(str(folder)).eval()
    texts = [*SENTENCES, "", "the Heart's  size &amp; shape: 12.5 cm " * 9]
    theirs = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    ids, mask = tensors(encoder, texts)
    assert torch.equal(ids, theirs[:, : ids.shape[1]]) and not theirs[:, ids.shape[1] :].any()
    with torch.no_grad():
        pooled, local = encoder(ids, mask)
        assert (pooled - model.encode_text(theirs)).abs().max() < 1e-5
        short = tensors(encoder, texts[1:2])
        assert short[0].shape[1] < 8
        assert (encoder(*short).pooled[0] - pooled[1]).abs().max() < 1e-5  # whatever it is padded to
    assert local.shape == (*ids.shape, encoder.local_dim) and pooled.shape == (5, encoder.dim)


def test_local_text_features_are_those_before_the_projection(models: dict[str, tuple[Path, Any]]) -> None:
    folder, model = models["clip"]
    encoder = OpenClipText(str(folder)).eval()
    ids, mask = tensors(encoder)
    pooled, local = encoder(ids, mask)
    last = local[torch.arange(3), mask.sum(dim=1) - 1]
    assert (last @ model.text_projection - pooled).abs().max() < 1e-5


@pytest.mark.parametrize("where", ["config.json", "setting", "shapes"])
def test_the_config_of_a_bert_comes_from_the_folder_a_setting_or_the_shapes(
    models: dict[str, tuple[Path, Any]], tmp_path: Path, where: str
) -> None:
    folder, model = models["biomed"]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = {"model_type": "bert", **builders.bert_sizes(**BERT_SIZES)}
    another = {**config, "num_attention_heads": 4}
    if where == "config.json":
        (tmp_path / "config.json").write_text(json.dumps(config))
    if where == "setting":  # comes first
        (tmp_path / "config.json").write_text(json.dumps(another))
    given = config if where == "setting" else None
    ids, mask = tensors(encoder := OpenClipText(str(tmp_path), hf_config=given).eval())
    assert (encoder(ids, mask).pooled - model.encode_text(ids)).abs().max() < 1e-5
    other = OpenClipText(str(tmp_path), hf_config=another).eval()
    assert (other(ids, mask).pooled - model.encode_text(ids)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["clip", "biomed"])
def test_another_size_interpolates_the_places_as_open_clip_does(models: dict[str, tuple[Path, Any]], name: str) -> None:
    folder, model = models[name]
    size = 48 if name == "clip" else 96
    encoder = OpenClipImage(str(folder), size=size).eval()
    if name == "clip":
        theirs = open_clip.create_model(f"local-dir:{folder}", force_image_size=size).eval()
    else:
        theirs = copy.deepcopy(model)
        theirs.visual.set_input_size(size)
    with torch.no_grad():
        pooled, local = encoder(pictures(size))
        assert (pooled - theirs.encode_image(pictures(size))).abs().max() < 1e-5
    patch = {"clip": 8, "biomed": 16}[name]
    assert encoder.spec.size == size and local.shape[1] == (size // patch) ** 2


def test_a_size_that_does_not_fit_is_one_line_with_the_nearest_that_does(
    models: dict[str, tuple[Path, Any]],
) -> None:
    for name, size, nearest in (("clip", 33, 32), ("clip", 45, 48), ("biomed", 225, 224)):
        with pytest.raises(ValueError, match=rf"size={size} is not a multiple of the patch .*: set size={nearest}$"):
            OpenClipImage(str(models[name][0]), size=size)
    with pytest.raises(ValueError, match="size=96: the attention pooling of this encoder takes 64 pixels only"):
        OpenClipImage(str(models["resnet"][0]), size=96)


# ------------------------------------------------------------------------------------------------- settings


def test_without_projection_features_are_those_before_it(models: dict[str, tuple[Path, Any]]) -> None:
    for name, projected in (
        ("clip", lambda model, x: x @ model.visual.proj),
        ("biomed", lambda model, x: model.visual.head(x)),
    ):
        folder, model = models[name]
        encoder = OpenClipImage(str(folder), projection=False).eval()
        pooled = features(encoder).pooled
        expected = model.encode_image(pictures(encoder.spec.size))
        assert pooled.shape == (2, encoder.dim) and encoder.dim == encoder.local_dim != 24
        assert (projected(model, pooled) - expected).abs().max() < 1e-5
    for name, projected in (
        ("clip", lambda model, x: x @ model.text_projection),
        ("biomed", lambda model, x: model.text.proj(x)),
    ):
        folder, model = models[name]
        whole, before = (OpenClipText(str(folder), projection=p).eval() for p in (True, False))
        pooled = features(before).pooled
        assert pooled.shape == (3, before.dim) and before.dim == before.local_dim != whole.dim == 24
        assert (projected(model, pooled) - features(whole).pooled).abs().max() < 1e-5
    with pytest.raises(ValueError, match="projection=false: the attention pooling of this encoder is its projection"):
        OpenClipImage(str(models["resnet"][0]), projection=False)


def test_checkpointing_gives_the_same_gradients_and_runs_blocks_twice(models: dict[str, tuple[Path, Any]]) -> None:
    blocks = {
        ("clip", OpenClipImage): "transformer.resblocks.0",
        ("clip", OpenClipText): "transformer.resblocks.0",
        ("biomed", OpenClipImage): "trunk.blocks.0",
        ("biomed", OpenClipText): "transformer.encoder.layer.0.intermediate",
    }
    for (name, kind), block in blocks.items():
        plain, saving = (kind(str(models[name][0]), checkpointing=c) for c in (False, True))
        for (key, one), other in zip(gradients(plain).items(), gradients(saving).values(), strict=True):
            assert one is not None and other is not None and torch.allclose(one, other, atol=1e-5), key
        passes = [builders.passes_of(e.tower.get_submodule(block), e) for e in (plain, saving)]
        assert passes == [1, 2], (name, kind)
    with pytest.raises(ValueError, match="checkpointing=true: open_clip's ResNets do not support it"):
        OpenClipImage(str(models["resnet"][0]), checkpointing=True)


def test_every_parameter_takes_part(models: dict[str, tuple[Path, Any]]) -> None:
    for folder, _ in models.values():
        assert unused(OpenClipImage(str(folder))) == []
        assert unused(OpenClipText(str(folder))) == []
    for name in ("clip", "biomed"):
        for kind in (OpenClipImage, OpenClipText):
            assert unused(kind(str(models[name][0]), projection=False)) == []


def test_given_colours_replace_those_of_the_folder(own: Path) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)
    assert OpenClipImage(str(own), mean=mean, std=std).spec.mean == mean
    assert OpenClipImage(str(own), std=std).spec.std == std
    rewrite(own / "open_clip_config.json", preprocess_cfg={"mean": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match=r"open_clip_config\.json lacks preprocess_cfg\.std \(set mean and std\)$"):
        OpenClipImage(str(own))
    OpenClipImage(str(own), mean=mean, std=std)
    OpenClipText(str(own))  # needs none


def test_texts_are_cut_to_max_length_and_keep_their_end(models: dict[str, tuple[Path, Any]]) -> None:
    long = ["the heart is enlarged " * 20]
    for name, most in (("clip", 20), ("biomed", 40)):
        folder, _ = models[name]
        encoder = OpenClipText(str(folder), max_length=7)
        ids, mask = tensors(encoder, long)
        whole, _ = tensors(OpenClipText(str(folder)), long)
        assert ids.shape == mask.shape == (1, 7) and ids[0, -1] == whole[0, -1] and mask.all()
        encoder(ids, mask)
        with pytest.raises(ValueError, match=rf"max_length={most + 1}: the model has {most} positions"):
            OpenClipText(str(folder), max_length=most + 1)


def test_a_tokenizer_larger_than_the_embedding_is_refused(own: Path) -> None:
    config = copy.deepcopy(CLIP)
    config["text_cfg"]["vocab_size"] = 100
    save_open_clip(own, config)
    with pytest.raises(ValueError, match="the tokenizer has 49408 tokens, the model 100: they do not belong together"):
        OpenClipText(str(own))


def test_tokenizers_travel(models: dict[str, tuple[Path, Any]]) -> None:
    for folder, _ in models.values():
        tokenizer = OpenClipText(str(folder)).tokenizer
        again = pickle.loads(pickle.dumps(tokenizer))
        assert again(SENTENCES) == tokenizer(SENTENCES)
    assert vocabulary_size(tokenizer.definition) == vocabulary_size(DEFINITION)
    words = tokenizer(["heart lung."]).words[0]
    assert words == [-1, 0, 1, 2, -1]


def test_tokenizer_settings_that_would_be_lost_are_refused(own: Path) -> None:
    text = {**PLAIN_TEXT, "tokenizer_kwargs": {"clean": "canonicalize"}}
    rewrite(own / "open_clip_config.json", model_cfg={**CLIP, "text_cfg": text})
    assert OpenClipText(str(own)).tokenizer(["Heart, lung!"]) == OpenClipText(str(own)).tokenizer(["heart lung"])
    text["tokenizer_kwargs"] = {"reduction_mask": "random"}
    rewrite(own / "open_clip_config.json", model_cfg={**CLIP, "text_cfg": text})
    with pytest.raises(ValueError, match="tokenizer settings that are not supported: reduction_mask"):
        OpenClipText(str(own))


# ------------------------------------------------------------------------------------------- names and files


def test_both_towers_are_loaded_independently_by_config(models: dict[str, tuple[Path, Any]]) -> None:
    folder = models["biomed"][0]
    for name in (str(folder), f"local-dir:{folder}"):
        towers = ["image_encoder=open_clip", "text_encoder=open_clip"]
        values = compose("train", [*towers, f"image_encoder.name={name}", f"text_encoder.name={name}"])
        image = build(values["image_encoder"], ImageEncoder, "image_encoder")
        text = build(values["text_encoder"], TextEncoder, "text_encoder")
        assert features(image).pooled.shape == (2, 24) and features(text).pooled.shape == (3, 24)


def test_nodes_rebuild_the_towers_without_folder_or_network(
    models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    clip, resnet, biomed = (str(models[name][0]) for name in ("clip", "resnet", "biomed"))
    towers = [
        OpenClipImage(clip, size=48, projection=False),
        OpenClipImage(resnet),
        OpenClipImage(biomed, size=96, std=(0.3, 0.3, 0.3), checkpointing=True),
        OpenClipText(clip, max_length=9),
        OpenClipText(biomed, projection=False, checkpointing=True),
    ]
    builders.assert_rebuilt_elsewhere(tmp_path, towers)


def test_older_files_and_half_precision_are_read(own: Path) -> None:
    weights = load_file(own / WEIGHTS)
    (own / WEIGHTS).unlink()
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, own / "open_clip_pytorch_model.bin")
    from_bin = OpenClipImage(str(own)).tower.state_dict()
    assert all(torch.equal(value, weights[f"visual.{key}"]) for key, value in from_bin.items())
    save_file({key: value.half() for key, value in weights.items()}, own / WEIGHTS)
    assert OpenClipText(str(own)).tower.ln_final.weight.dtype == torch.float32


def test_weights_that_do_not_fit_are_refused_with_counts_and_examples(own: Path) -> None:
    weights = load_file(own / WEIGHTS)
    lost = weights.pop("visual.ln_pre.weight")
    weights["strange.weight"] = lost
    weights["visual.ln_post.bias"] = torch.zeros(3)
    weights["positional_embedding"] = torch.zeros(5, 32)
    save_file(weights, own / WEIGHTS)
    with pytest.raises(ValueError) as caught:
        OpenClipImage(str(own))
    assert str(caught.value) == (
        f"name={own}: the weights do not fit the model: 30 tensors matched, 1 missing (ln_pre.weight), "
        f"1 unexpected ({WEIGHTS}:strange.weight), 1 mismatched (ln_post.bias [3] for [32])"
    )
    with pytest.raises(ValueError, match=r"1 mismatched \(positional_embedding \[5, 32\] for \[20, 32\]\)"):
        OpenClipText(str(own))


def test_a_text_tower_that_is_no_plain_bert_needs_a_config(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    for file in models["biomed"][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / WEIGHTS)
    key = "text.transformer.embeddings.token_type_embeddings.weight"
    save_file({**weights, key: weights[key][:1].clone()}, tmp_path / WEIGHTS)
    message = r"no plain BERT's \(1 types of token\): put the config\.json of nowhere/no-bert into the folder, or set"
    with pytest.raises(ValueError, match=message):
        OpenClipText(str(tmp_path))
    save_file({**weights, key: torch.zeros(2, 96)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="mismatched"):
        OpenClipText(str(tmp_path))
    with pytest.raises(ValueError, match="hf_config: no model_type among hidden_size"):
        OpenClipText(str(tmp_path), hf_config={"hidden_size": 3})
    with pytest.raises(ValueError, match=r"hf_config: the text encoder of .* is open_clip's own"):
        OpenClipText(str(models["clip"][0]), hf_config={"model_type": "bert"})


def test_open_clips_own_names_start_from_random_weights_or_a_file(tmp_path: Path) -> None:
    name = "ViT-S-32-alt"
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    torch.save(model.state_dict(), file := tmp_path / "weights.pt")
    fresh, loaded = OpenClipImage(name), OpenClipImage(name, pretrained=str(file))
    assert fresh.load_report is None and loaded.load_report is not None
    assert torch.equal(loaded.tower.conv1.weight, model.visual.conv1.weight)
    assert not torch.equal(fresh.tower.conv1.weight, model.visual.conv1.weight)
    assert loaded.spec.mean == open_clip.OPENAI_DATASET_MEAN and loaded.spec.size == 224
    file.write_text(builders.LFS)
    with pytest.raises(ValueError, match=r"pretrained=.*weights\.pt is a git-lfs pointer"):
        OpenClipImage(name, pretrained=str(file))


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B32", None, r"neither a folder nor one of open_clip's models \(did you mean `ViT-B-32"),
        ("ViT-B-32", "laion3b", r"pretrained=laion3b: neither a file nor a tag of ViT-B-32 \(tags: openai, "),
        ("ViT-B-32", "openai", r"trained with another GELU, set name=ViT-B-32-quickgelu$"),
        ("nowhere/at-all", None, r"name=nowhere/at-all: .*\(with no network, give a local folder instead\)$"),
        ("hf-hub:nowhere/at-all", None, r"name=hf-hub:nowhere/at-all: .*give a local folder instead"),
        ("local-dir:./none", None, r"name=local-dir:\./none: no such folder"),
    ],
)
def test_names_that_lead_nowhere_are_answered_in_one_line(name: str, pretrained: str | None, message: str) -> None:
    for kind in (OpenClipImage, OpenClipText):
        with pytest.raises(ValueError, match=message) as caught:
            kind(name, pretrained=pretrained)
        assert "\n" not in str(caught.value)


def test_weights_beside_a_folder_are_refused(own: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained=openai: .* brings its own weights, set pretrained=null"):
        OpenClipImage(str(own), pretrained="openai")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CLIP, "vision_cfg": {**VIT, "no_such": 1}}, "open_clip cannot make this encoder: .*no_such"),
        ({**CLIP, "vision_cfg": {**VIT, "pool_type": "none"}}, r"vision_cfg\.pool_type=none: .* does not pool"),
    ],
)
def test_configs_that_open_clip_cannot_make(own: Path, config: dict[str, Any], message: str) -> None:
    rewrite(own / "open_clip_config.json", model_cfg=config)
    with pytest.raises(ValueError, match=message):
        OpenClipImage(str(own))
