"""Towers written as folders of other libraries, read by these libraries, with the network refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from builders import CLIP, SENTENCES, pictures, tensors
from helpers import TinyImages, TinyTexts, batch_of
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.models.huggingface import HuggingFaceVision
from cxrcl.models.image import TimmEncoder
from cxrcl.models.open_clip import OpenClipImage, OpenClipText
from cxrcl.models.saving import Preprocessing, Saved, save_tensors, save_tokenizer, save_towers
from cxrcl.models.text import HuggingFaceText
from cxrcl.models.tokenizer import PackedTokenizer, clip_bpe
from cxrcl.types import ImageSpec

PREPROCESSING = Preprocessing(ImageSpec(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), "crop")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    builders.refuse_network(monkeypatch)


def save(
    folder: Path, image: Any = None, text: Any = None, preprocessing: Preprocessing = PREPROCESSING
) -> tuple[list[Saved], list[str]]:
    return save_towers(image, text, preprocessing, 20.0, folder)


def near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and float((one - other).detach().abs().max()) < 1e-5


# -------------------------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("kind", ["ViT", "Swin", "CLIPVision"])
def test_image_towers_of_transformers(tmp_path: Path, kind: str, size: int) -> None:
    if kind == "Swin":
        sizes: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    else:
        sizes = SIZES
    config = getattr(transformers, f"{kind}Config")(image_size=32, patch_size=4, **sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / "given")
    tower = HuggingFaceVision(str(tmp_path / "given"), size=size, pooling="mean")
    builders.perturb(tower)
    (saved,), lines = save(
        tmp_path,
        image=tower,
        preprocessing=Preprocessing(ImageSpec(size, PREPROCESSING.spec.mean, PREPROCESSING.spec.std), "pad"),
    )
    assert not lines and saved.folder == "image_encoder"
    model = transformers.AutoModel.from_pretrained(tmp_path / "image_encoder").eval()
    films = pictures(size)
    found = model(pixel_values=films, **tower._call).last_hidden_state
    assert near(found, tower.model(pixel_values=films, **tower._call).last_hidden_state)
    assert near(found[:, tower._prefix :].mean(dim=1), tower(films).pooled)
    assert ("interpolate_pos_encoding=True" in saved.note) == (size == 48)
    # Ours reads it, too.
    again = HuggingFaceVision(str(tmp_path / "image_encoder"), size=size, pooling="mean").eval()
    assert torch.equal(again(films).pooled, tower(films).pooled)


def stripes(height: int, width: int) -> Image.Image:
    """Bright on the left, dark on the right, and all but black above and below: what a cut loses is seen."""
    film = np.full((height, width), 250, dtype=np.uint8)
    film[:, width // 2 :] = 100
    film[: height // 8], film[-(height // 8) :] = 20, 20
    return Image.fromarray(film)


def readers(folder: Path, preprocessing: Preprocessing) -> dict[str, Any]:
    """Preprocessing as each library takes it from its folder: a film -> [3, S, S]."""
    (folder / "given").mkdir()
    builders.save_open_clip(folder / "given", CLIP)
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)).save_pretrained(folder / "hf")
    own = HuggingFaceVision(str(folder / "hf"), mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0))  # the transform has others
    save(folder / "a", image=own, preprocessing=preprocessing)
    save(folder / "b", image=TimmEncoder("test_resnet", size=32), preprocessing=preprocessing)
    save(folder / "c", OpenClipImage(str(folder / "given")), OpenClipText(str(folder / "given")), preprocessing)
    processor = transformers.AutoImageProcessor.from_pretrained(folder / "a" / "image_encoder")
    model = timm.create_model(f"local-dir:{folder / 'b' / 'image_encoder'}", pretrained=True)
    of_timm: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    of_open_clip: Any = open_clip.create_model_and_transforms(f"local-dir:{folder / 'c' / 'open_clip'}")[2]
    return {
        "transformers": lambda film: processor(film, return_tensors="pt")["pixel_values"][0],
        "timm": lambda film: of_timm(film.convert("RGB")),
        "open_clip": of_open_clip,
    }


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_what_the_folders_do_to_a_film(tmp_path: Path, fit: Any) -> None:
    """The same on films of the model's size, and nearly so elsewhere; timm pads with the mean."""
    preprocessing = Preprocessing(PREPROCESSING.spec, fit)
    transform = RadiographTransform(preprocessing.spec, fit)
    for name, read in readers(tmp_path, preprocessing).items():
        for film in (stripes(32, 32), stripes(192, 144), stripes(144, 192)):
            batch = batch_of(torch.from_numpy(transform.geometry(np.asarray(film), None)[None, None]))
            expected = transform.finish(batch).images
            assert expected is not None
            difference = (read(film) - expected[0, 0]).abs()
            if name == "timm" and fit == "pad" and film.size != (32, 32):
                difference = difference[:, 5:-5, 5:-5]
            assert float(difference.mean()) < (1e-6 if film.size == (32, 32) else 0.08), (name, film.size)


def test_the_share_of_the_square_that_is_read(tmp_path: Path) -> None:
    film = stripes(64, 64)
    middle = torch.from_numpy(np.asarray(film)[16:48, 16:48] / np.float32(255))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESSING.spec.mean, PREPROCESSING.spec.std))
    found = readers(tmp_path, Preprocessing(PREPROCESSING.spec, "squash", 0.5))
    for name in ("transformers", "timm"):
        assert near(found[name](film), (middle - mean) / std), name


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@torch.no_grad()
def test_text_towers_of_transformers_and_their_tokenizer(tmp_path: Path, kind: str) -> None:
    builders.save_text(tmp_path / "given", kind)
    tower = HuggingFaceText(str(tmp_path / "given"), pooling="cls", max_length=12)
    builders.perturb(tower)
    (saved,), lines = save(tmp_path, text=tower)
    assert not lines and "cut to 12 tokens; pooling is `cls` over the last layer" in saved.note
    folder = tmp_path / "text_encoder"
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    ids, mask = tensors(tower)
    assert torch.equal(inputs["input_ids"], ids) and torch.equal(inputs["attention_mask"], mask)
    assert ids.shape[1] == 12  # cut
    assert near(model(input_ids=ids, attention_mask=mask).last_hidden_state, tower(ids, mask).local)
    again = HuggingFaceText(str(folder), pooling="cls", max_length=12).eval()
    assert torch.equal(again(*tensors(again)).pooled, tower(ids, mask).pooled)


def test_a_padding_piece_that_is_none_is_not_made_one(tmp_path: Path) -> None:
    """CLIP pads by 0, which is an exclamation mark."""
    tokenizer = PackedTokenizer(clip_bpe(), 20)
    save_tokenizer(tokenizer, tmp_path)
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert found(["a film!"])["input_ids"] == tokenizer(["a film!"]).ids


# ----------------------------------------------------------------------------------------------------------- timm


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("test_resnet", 64, None),
        ("resnet10t", 64, {"channels": [8, 16, 16, 24], "stem_width": 8}),
        ("test_vit", 96, None),  # of another native size: built for this one
        ("test_convnext", 64, None),
    ],
)
@torch.no_grad()
def test_towers_of_timm(tmp_path: Path, name: str, size: int, options: dict[str, Any] | None) -> None:
    tower = TimmEncoder(name, size=size, options=options)
    builders.perturb(tower)
    for part in tower.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.add_(0.3)  # type: ignore[union-attr]
    (saved,), lines = save(
        tmp_path,
        image=tower,
        preprocessing=Preprocessing(ImageSpec(size, PREPROCESSING.spec.mean, PREPROCESSING.spec.std), "pad"),
    )
    assert not lines and saved.code == 'timm.create_model("local-dir:image_encoder", pretrained=True)'
    model = timm.create_model(f"local-dir:{tmp_path / 'image_encoder'}", pretrained=True).eval()
    films = pictures(size)
    assert near(model(films), tower(films).pooled)
    config = timm.data.resolve_model_data_config(model)
    assert [*config["input_size"]] == [3, size, size]
    assert ((*config["mean"],), (*config["std"],)) == (PREPROCESSING.spec.mean, PREPROCESSING.spec.std)


# ------------------------------------------------------------------------------------------------------ open_clip


@pytest.mark.parametrize("size", [None, 48])
@pytest.mark.parametrize("bert", [False, True])
@torch.no_grad()
def test_a_model_of_open_clip(tmp_path: Path, bert: bool, size: int | None) -> None:
    given, config = tmp_path / "given", CLIP
    if bert:
        builders.save_text(tmp_path / "bert", hidden_size=128)
        text = {"hf_model_name": "nowhere/no-bert", "hf_tokenizer_name": "nowhere/no-bert", "hf_proj_type": "mlp"}
        config = {**CLIP, "text_cfg": {**text, "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 30}}
    given.mkdir()
    builders.save_open_clip(given, config, tmp_path / "bert" if bert else None)
    towers: list[Any] = [OpenClipImage(str(given), size=size), OpenClipText(str(given))]
    for tower in towers:
        builders.perturb(tower)
    preprocessing = Preprocessing(ImageSpec(size or 32, PREPROCESSING.spec.mean, PREPROCESSING.spec.std), "crop")
    (saved,), lines = save(tmp_path, *towers, preprocessing=preprocessing)
    folder = tmp_path / "open_clip"
    assert not lines and saved.folder == "open_clip" and ("nowhere/no-bert" in saved.note) == bert
    if bert:  # as the note says
        content = json.loads((folder / "open_clip_config.json").read_text())
        content["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder)
        (folder / "open_clip_config.json").write_text(json.dumps(content))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    films, (ids, mask) = pictures(size or 32), tensors(towers[1])
    assert near(model.eval().encode_image(films), towers[0](films).pooled)
    pieces = open_clip.get_tokenizer(f"local-dir:{folder}")(SENTENCES)
    assert torch.equal(pieces[:, : ids.shape[1]] * mask, ids * mask)
    assert near(model.encode_text(pieces), towers[1](ids, mask).pooled)
    assert abs(float(model.logit_scale.exp()) - 20.0) < 1e-4
    assert (transform.transforms[-1].mean, transform.transforms[-1].std) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    again = OpenClipImage(str(folder)).eval()
    assert again.spec == preprocessing.spec and torch.equal(again(films).pooled, towers[0](films).pooled)


# ------------------------------------------------------------------------------------------------ towers of none


def test_towers_without_a_library_are_named(tmp_path: Path) -> None:
    saved, lines = save(tmp_path, TinyImages(), TinyTexts())
    assert not saved and [line.partition(":")[0] for line in lines] == ["image_encoder", "text_encoder"]
    assert "TinyImages is no model of transformers, open_clip or timm" in lines[0]
    assert save(tmp_path) == ([], [])


def test_half_a_model_of_open_clip_has_no_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    builders.save_open_clip(tmp_path / "one", CLIP)
    builders.save_open_clip(tmp_path / "other", {**CLIP, "embed_dim": 16})
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    for towers in (
        (OpenClipImage(one), TinyTexts()),
        (OpenClipImage(one), OpenClipText(other)),
        (OpenClipImage(one, projection=False), OpenClipText(one)),
    ):
        saved, lines = save(tmp_path / "out", *towers)
        assert not saved and "open_clip loads both encoders of one model" in lines[0]


# -------------------------------------------------------------------------------------------------------- tensors


def test_tied_tensors_and_views_are_kept_under_each_name(tmp_path: Path) -> None:
    """safetensors itself refuses memory that is shared, and layouts other than the plain one."""
    whole = torch.arange(24.0).view(2, 3, 2, 2)
    given = {
        "one": whole,
        "tied": whole,
        "part": whole[:, 1],
        "channels_last": whole.clone().to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "gradient": nn.Parameter(torch.ones(2)),
    }
    save_tensors(given, tmp_path / "a" / "x.safetensors")
    found = load_file(tmp_path / "a" / "x.safetensors")
    assert found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)
    assert all(found[name].dtype == given[name].dtype for name in given)
