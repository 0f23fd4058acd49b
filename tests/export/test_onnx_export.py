"""ONNX files against the models they were written from. Published towers: tests/models/test_onnx_towers.py."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import ROOT, CharTokenizer, TinyImages, TinyTexts, batch_of, two_towers
from torch import Tensor, nn

import cxrcl
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.errors import ConfigError
from cxrcl.export import exporting, onnx_export
from cxrcl.export.onnx_export import Written, write
from cxrcl.models.heads import MLP
from cxrcl.objectives.classify import Classify
from cxrcl.objectives.clip import Clip
from cxrcl.objectives.combined import Sum
from cxrcl.objectives.convirt import ConVirt
from cxrcl.objectives.cxr_clip import CxrClip
from cxrcl.objectives.gloria import Gloria
from cxrcl.objectives.moco import Moco
from cxrcl.objectives.siglip import SigLip
from cxrcl.objectives.simclr import SimClr
from cxrcl.types import Features, ImageSpec


def run(file: Path, *inputs: Tensor) -> tuple[np.ndarray, dict[str, str]]:
    session = onnxruntime.InferenceSession(file)
    feed = {each.name: value.numpy() for each, value in zip(session.get_inputs(), inputs, strict=True)}
    (found,) = session.run(None, feed)
    return found, session.get_modelmeta().custom_metadata_map


def assert_same(found: np.ndarray, expected: Tensor) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected.detach().numpy()).max() < 1e-5


def films(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def texts(*words: str) -> tuple[Tensor, Tensor]:
    ids, mask, _ = CharTokenizer()(words)
    return torch.tensor(ids), torch.tensor(mask)


def two(objective: Any, **arguments: Any) -> Any:
    return two_towers(objective, **arguments).eval()


def simclr(encoder: Any) -> SimClr:
    torch.manual_seed(0)
    return SimClr(encoder, partial(MLP, out_dim=4)).eval()


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, list[Written]]:
    model, folder = two(SigLip, image_encoder=TinyImages(norm=True), bias=-3.0), tmp_path_factory.mktemp("siglip")
    return model, folder, write(model, 16, 200, folder)


# ----------------------------------------------------------------------------------------------------- the files


def test_both_sides_are_written_and_described(siglip: tuple[Any, Path, list[Written]]) -> None:
    _, folder, written = siglip
    assert sorted(file.name for file in folder.iterdir()) == ["image.onnx", "text.onnx"]
    image, text = written
    assert image[:3] == ("image.onnx", {"images": "float32 [batch, 3, 16, 16]"}, {"embedding": "float32 [batch, 6]"})
    pieces = "int64 [batch, length]"
    assert text[:3] == ("text.onnx", {"ids": pieces, "mask": pieces}, {"embedding": "float32 [batch, 6]"})
    assert all(0 < each.difference < 1e-5 for each in written)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_films_are_embedded_as_by_the_model(siglip: tuple[Any, Path, list[Written]], count: int) -> None:
    model, folder, _ = siglip
    found, _ = run(folder / "image.onnx", films(count))
    assert_same(found, model.embed_images(model.encode_images(films(count))))


@pytest.mark.parametrize("words", [["edema"], ["a heart", "no", "no pleural effusion " * 7], ["x" * 198]])
def test_texts_are_embedded_as_by_the_model(siglip: tuple[Any, Path, list[Written]], words: list[str]) -> None:
    model, folder, _ = siglip
    found, _ = run(folder / "text.onnx", *texts(*words))
    assert_same(found, model.embed_text(*texts(*words)))


def test_what_probabilities_need_is_in_the_metadata(siglip: tuple[Any, Path, list[Written]]) -> None:
    model, folder, _ = siglip
    for file, inputs in (("image.onnx", (films(1),)), ("text.onnx", texts("edema"))):
        _, metadata = run(folder / file, *inputs)
        assert {name: float(value) for name, value in metadata.items()} == {
            "similarity_scale": model.similarity_scale(),
            "similarity_bias": -3.0,
        }


def test_a_file_has_its_own_side_only_and_names_no_folder(siglip: tuple[Any, Path, list[Written]]) -> None:
    _, folder, _ = siglip
    for own, other in (("image", "text"), ("text", "image")):
        weights = [each.name for each in onnx.load(folder / f"{own}.onnx").graph.initializer]
        assert any(f"{own}_encoder" in name for name in weights) and not any(f"{other}_" in name for name in weights)
        content = (folder / f"{own}.onnx").read_bytes()
        assert b".py" not in content and str(ROOT).encode() not in content


# ------------------------------------------------------------------------------------------------- the objectives


def test_a_classifier_gives_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classify(TinyImages(), ["a", "b", "c"], task="multi_class").eval()
    (written,) = write(model, 16, None, tmp_path)
    assert written.outputs == {"logits": "float32 [batch, 3]"}
    found, metadata = run(tmp_path / "image.onnx", films(4))
    assert_same(found, model.classify(model.encode_images(films(4))))
    assert {name: json.loads(value) for name, value in metadata.items()} == {"labels": ["a", "b", "c"]}
    assert np.abs((1 / (1 + np.exp(-found))).sum(axis=1) - 1).max() < 1e-6  # as docs/onnx.md says


@pytest.mark.parametrize("objective", [SimClr, partial(Moco, queue_size=8)], ids=["simclr", "moco"])
def test_without_texts_and_labels_features_are_given(objective: Any, tmp_path: Path) -> None:
    model = objective(TinyImages(norm=True), partial(MLP, out_dim=4, batch_norm=True)).eval()
    (written,) = write(model, 16, None, tmp_path)
    assert written.outputs == {"features": "float32 [batch, 8]"}
    found, _ = run(tmp_path / "image.onnx", films(3))
    assert_same(found, model.encode_images(films(3)).pooled)


LOCAL = {"region_head": partial(MLP, out_dim=4), "word_head": partial(MLP, out_dim=4)}


def combined() -> Any:
    image, text, head = TinyImages(), TinyTexts(), partial(MLP, out_dim=4)
    parts = {"clip": lambda: Clip(image, text, head, head), "simclr": lambda: SimClr(image, head)}
    return Sum(parts, "clip").eval().evaluated()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [partial(two, Clip), partial(two, CxrClip), partial(two, ConVirt), partial(two, Gloria, **LOCAL), combined],
    ids=["clip", "cxr_clip", "convirt", "gloria", "clip_simclr"],
)
def test_every_objective_with_texts(make: Any, tmp_path: Path) -> None:
    model = make()
    assert [each.file for each in write(model, 16, None, tmp_path)] == ["image.onnx", "text.onnx"]
    found, metadata = run(tmp_path / "image.onnx", films(2))
    assert_same(found, model.embed_images(model.encode_images(films(2))))
    assert metadata == {"similarity_scale": repr(model.similarity_scale())}
    assert_same(run(tmp_path / "text.onnx", *texts("no", "edema"))[0], model.embed_text(*texts("no", "edema")))


# ------------------------------------------------------------------------------------------ what cannot be written


class Counts(TinyImages):
    def forward(self, images: Tensor) -> Features:
        found = super().forward(images)
        return found._replace(pooled=found.pooled + torch.zeros(len(images), 1))


class Decides(TinyImages):
    def forward(self, images: Tensor) -> Features:
        return super().forward(images if images.mean() > 0 else -images)


class Untranslatable(TinyImages):
    def forward(self, images: Tensor) -> Features:
        found = super().forward(images)
        return found._replace(pooled=torch.special.bessel_j0(found.pooled))


class DropsOut(TinyImages):
    """Answers otherwise when it is called a second time, as an export never would."""

    calls = 0

    def forward(self, images: Tensor) -> Features:
        self.calls += 1
        found = super().forward(images)
        return found._replace(pooled=found.pooled + 2e-4 * (self.calls - 1))


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (Counts, r"image.onnx: image_encoder Counts fixes the batch of images at 2: .* tensor.shape"),
        (Decides, r"image.onnx: image_encoder Decides has no ONNX form: Could not guard on data-dependent expression"),
        (Untranslatable, r"image.onnx: image_encoder Untranslatable has no ONNX form: .*bessel_j0"),
        (DropsOut, r"image.onnx: image_encoder DropsOut: .* differ by [24].0e-04, expected 1e-04 or less"),
    ],
)
def test_what_cannot_be_written_is_named_and_nothing_is_left(encoder: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        write(simclr(encoder()), 16, None, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_an_image_side_is_not_left_without_the_text_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, ids: Tensor, mask: Tensor) -> Features:
        raise RuntimeError("no such\nthing")

    model = two(Clip)
    monkeypatch.setattr(TinyTexts, "forward", fail)
    with pytest.raises(ConfigError, match=r"text.onnx: text_encoder TinyTexts has no ONNX form: no such$"):
        write(model, 16, None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_that_sees_no_films_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Linear has no method encode_images"):
        write(nn.Linear(1, 1), 16, None, tmp_path)


def test_a_full_disk_is_not_the_fault_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.onnx.ONNXProgram.save", full)
    with pytest.raises(OSError, match="No space left"):
        write(simclr(TinyImages()), 16, None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(ConfigError, match=re.escape("--onnx needs onnxscript: pip install 'cxrcl[onnx]'")):
        write(simclr(TinyImages()), 16, None, tmp_path)


# ------------------------------------------------------------------------------------------------------- manners


def test_weights_beside_a_file_that_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
    model = simclr(TinyImages(width=400))
    write(model, 16, None, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["image.onnx", "image.onnx.data"]
    assert_same(run(tmp_path / "image.onnx", films(2))[0], model.encode_images(films(2)).pooled)


class Halves(TinyImages):
    """The optimizer of graphs logs that it leaves such constants alone."""

    def forward(self, images: Tensor) -> Features:
        found = super().forward(images)
        assert self.conv.bias is not None
        first, second = self.conv.bias.chunk(2)
        return found._replace(pooled=found.pooled + torch.cat([second, first]))


def test_nothing_is_printed_and_the_model_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = two(Clip, image_encoder=Halves())
    drawn, disabled = torch.random.get_rng_state(), logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(model, 16, None, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert logging.root.manager.disable == disabled
    assert not model.training and model.image_encoder.conv.weight.requires_grad
    assert torch.equal(drawn, torch.random.get_rng_state())


# ------------------------------------------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def page(trained: Path, tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the example leaves behind."""
    folder = tmp_path_factory.mktemp("page")
    exporting.export(trained, folder / "exported", exporting.Options(onnx=True))
    patient = folder / "data" / "phantom" / "set" / "images" / "p0"
    patient.mkdir(parents=True)
    for name in ("0_pa", "1_pa", "0_lateral"):
        shutil.copyfile(tiny_set / "images" / f"{name}.png", patient / f"{name}.png")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(block, names)
        names["paths"] = [path.absolute() for path in names["paths"]]
    return names


def test_the_page_gives_the_probabilities_of_zero_shot(page: dict[str, Any], trained: Path) -> None:
    labels = {"heart": {"pos": page["positive"], "neg": page["negative"]}}
    model = cxrcl.load(trained, device="cpu", precision="fp32")
    expected = model.zero_shot(page["paths"], labels)[:, 0]
    assert len(expected) == 3 and np.abs(page["probabilities"] - expected).max() < 1e-4
    assert expected.std() > 1e-3


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_the_page_sees_films_as_the_transform_does(page: dict[str, Any], fit: Any, share: float) -> None:
    spec = ImageSpec(32, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    transform = RadiographTransform(spec, fit, share)
    steps = {"size": 32, "mean": spec.mean, "std": spec.std, "fit": fit, "eval_crop": share}
    square: Any = FunctionType(page["square"].__code__, {**page, "steps": steps})
    for shape in ((32, 32), (40, 36), (20, 90), (301, 200), (500, 40)):
        film = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        batch = batch_of(torch.from_numpy(transform.geometry(film, None)[None, None]))
        expected = transform.finish(batch).images
        assert expected is not None and np.abs(square(film) - expected[0, 0].numpy()).max() < 1e-6
