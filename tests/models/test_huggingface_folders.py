"""What folders of Hugging Face hold beside the plain case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import transformers
from builders import perturb, pictures, rewrite
from safetensors.torch import load_file

from cxrcl.models.huggingface import HuggingFaceVision
from cxrcl.models.text import HuggingFaceText
from cxrcl.models.weights import is_known_head

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VIT |= {"image_size": 32, "patch_size": 8}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    builders.refuse_network(monkeypatch)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    perturb(transformers.ViTModel(transformers.ViTConfig(**VIT))).save_pretrained(tmp_path)
    return tmp_path


def test_constants_that_a_model_keeps_for_all_are_real_ones(tmp_path: Path) -> None:
    """BEiT computes the places of patches once for each size: were they made without values, so were all to come."""
    config = transformers.BeitConfig(**{**VIT, "image_size": 56}, use_relative_position_bias=True)
    model = perturb(transformers.BeitModel(config))
    model.save_pretrained(tmp_path)
    encoder = HuggingFaceVision(str(tmp_path), pooling="mean").eval()  # before the model's own first pass
    with torch.no_grad():
        local = encoder(pictures(56)).local
        expected = model(pixel_values=pictures(56)).last_hidden_state[:, 1:]
    assert local.isfinite().all() and (local - expected).abs().max() < 1e-5


def test_a_masked_autoencoder_sees_all_patches(tmp_path: Path) -> None:
    sizes = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 1}
    perturb(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**VIT, **sizes))).save_pretrained(tmp_path)
    encoder = HuggingFaceVision(str(tmp_path)).eval()
    model = transformers.ViTModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        pooled, local = encoder(pictures(32))
        expected = model(pixel_values=pictures(32)).last_hidden_state
    assert local.shape == (2, 16, 16)
    assert (torch.cat([pooled[:, None], local], dim=1) - expected).abs().max() < 1e-5


def test_normalisation_comes_from_a_processor_of_text_and_images(vit: Path) -> None:
    content = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (vit / "processor_config.json").write_text(json.dumps({"image_processor": content}))
    spec = HuggingFaceVision(str(vit)).spec
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (vit / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": 0.5}}))
    with pytest.raises(ValueError, match=r"processor_config\.json lacks image_mean and image_std of three values"):
        HuggingFaceVision(str(vit))


@pytest.mark.parametrize(
    "change",
    [
        {"return_dict": False},
        {"image_size": [32, 32]},
        {"attn_implementation": "someone/attention-code"},  # transformers would fetch it and run it
    ],
)
def test_settings_of_a_config_that_change_nothing(vit: Path, change: dict[str, Any]) -> None:
    before = HuggingFaceVision(str(vit)).eval()
    rewrite(vit / "config.json", **change)
    after = HuggingFaceVision(str(vit)).eval()
    assert torch.equal(before(pictures(32)).pooled, after(pictures(32)).pooled)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": [32, 64]}, r"image_size=\[32, 64\]: only squares"),
        ({"hidden_size": "wide"}, r"config\.json: .*hidden_size"),
        ({"model_type": "blip_vision_model"}, r"no model by itself for model_type blip_vision_model"),
    ],
)
def test_configs_that_cannot_be_used_are_one_line(vit: Path, change: dict[str, Any], said: str) -> None:
    rewrite(vit / "config.json", **change)
    with pytest.raises(ValueError, match=said) as caught:
        HuggingFaceVision(str(vit))
    assert str(caught.value).startswith(f"name={vit}: ") and "\n" not in str(caught.value)


def test_a_model_without_the_pooling_that_is_asked_for(tmp_path: Path) -> None:
    perturb(transformers.ViTMSNModel(transformers.ViTMSNConfig(**VIT))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"pooling=pooler: the model has no pooler_output, set pooling=mean"):
        HuggingFaceVision(str(tmp_path), pooling="pooler")


def test_weights_that_would_run_code_are_refused_without_the_advice_to_run_it(vit: Path) -> None:
    (vit / "model.safetensors").unlink()
    touched = vit / "touched"

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (touched,)

    torch.save({"layernorm.weight": Runs()}, vit / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot be read as plain tensors: use a folder with model\.safetensors$"):
        HuggingFaceVision(str(vit))
    assert not touched.exists()


@pytest.mark.parametrize("kind", ["MPNet", "MegatronBert", "DebertaV2"])
def test_models_without_a_fused_attention_are_read_with_the_plain_one(tmp_path: Path, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**builders.bert_sizes(), pad_token_id=0)
    model = perturb(getattr(transformers, f"{kind}Model")(config))
    model.save_pretrained(tmp_path)
    builders.save_tokenizer(tmp_path)
    encoder = HuggingFaceText(str(tmp_path), max_length=30).eval()
    ids, mask = builders.tensors(encoder)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert encoder.node()["attention"] == "eager"
    assert ((encoder(ids, mask).local - expected) * mask[..., None]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "own"), [("DistilBert", "distilbert."), ("Albert", "albert."), ("Electra", "electra.")]
)
def test_heads_of_masked_words_are_known(tmp_path: Path, kind: str, own: str) -> None:
    sizes = {"vocab_size": 40, "embedding_size": 8, "dim": 16, "hidden_dim": 16, "n_heads": 2, "n_layers": 1}
    sizes |= {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    name = "AlbertForPreTraining" if kind == "Albert" else f"{kind}ForMaskedLM"
    config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    heads = [key for key in load_file(tmp_path / "model.safetensors") if not key.startswith(own)]
    assert heads and all(map(is_known_head, heads))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """A clinical BERT's 28,996 pieces would index a table of 30,522 rows without any error."""
    builders.save_text(tmp_path, vocab_size=400)
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, the model 400: they do not belong together"):
        HuggingFaceText(str(tmp_path), max_length=30)
