"""Text towers against transformers itself."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import transformers
from builders import SENTENCES, TEXTS, WORDS, features, gradients, perturb, rewrite, tensors, unused
from helpers import ROOT
from safetensors.torch import load_file, save_file

from cxrcl.config.nodes import build
from cxrcl.models.base import TextEncoder
from cxrcl.models.text import BertText, HuggingFaceText, TinyText, pool
from cxrcl.models.tokenizer import PackedTokenizer, learn_wordpiece


class Corpus:
    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        return fit(TEXTS)


def tiny(**arguments: Any) -> TinyText:
    torch.manual_seed(0)
    return TinyText(Corpus(), **{"width": 16, "depth": 1, "heads": 2, "max_length": 24, **arguments})


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders.save_text(folder := tmp_path_factory.mktemp("bert"))
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders.save_text(folder := tmp_path_factory.mktemp("roberta"), "roberta")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both towers of a CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    text = {**builders.bert_sizes(), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "hidden_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config={**sizes, "intermediate_size": 8})
    perturb(transformers.CLIPModel(config)).save_pretrained(folder)
    builders.save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def cxr_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BiomedVLP-CXR-BERT: a BERT with two heads, whose config and tokenizer name code inside of the folder."""
    folder = tmp_path_factory.mktemp("cxr_bert")
    builders.save_text(folder, "pretraining")
    weights = {key: v for key, v in load_file(folder / "model.safetensors").items() if "seq_relation" not in key}
    weights["cls_projection_head.dense_to_hidden.weight"] = torch.zeros(4, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoTokenizer": ["code.Tokenizer", None]}
    rewrite(folder / "config.json", model_type="cxr-bert", projection_size=4, auto_map=code)
    rewrite(folder / "tokenizer_config.json", tokenizer_class="CXRBertTokenizer", auto_map=code)
    (folder / "code.py").write_text("raise SystemExit('ran')")
    return folder


# -------------------------------------------------------------------------------------------------- pooling


def test_pooling_takes_the_first_the_last_or_the_mean_of_the_admitted_pieces() -> None:
    hidden = torch.arange(2 * 4 * 3, dtype=torch.float32).view(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    assert torch.equal(pool(hidden, mask, "cls"), torch.stack([hidden[0, 0], hidden[1, 0]]))
    assert torch.equal(pool(hidden, mask, "eos"), torch.stack([hidden[0, 3], hidden[1, 1]]))
    means = torch.stack([hidden[0].sum(0) / 4, (hidden[1, 0] + hidden[1, 1]) / 2])
    assert torch.allclose(pool(hidden, mask, "mean"), means)


@pytest.mark.parametrize("pooling", ["cls", "eos", "mean"])
def test_padding_does_not_change_the_pooled_text(pooling: str) -> None:
    encoder = tiny(pooling=pooling).eval()
    together = encoder(*tensors(encoder)).pooled
    for k, sentence in enumerate(SENTENCES):
        assert (encoder(*tensors(encoder, [sentence])).pooled[0] - together[k]).abs().max() < 1e-5


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_parameter_takes_part(pooling: str) -> None:
    encoder = tiny(pooling=pooling)
    (encoder(*tensors(encoder)).pooled ** 2 * torch.arange(16)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


# ------------------------------------------------------------------------------------------------ tiny texts


def test_tiny_text_learns_its_vocabulary_from_the_corpus() -> None:
    encoder = tiny(vocabulary_size=60)
    assert encoder.tokenizer.definition == learn_wordpiece(TEXTS, 60)
    assert encoder.model.config.vocab_size == 60
    pooled, local = encoder(*tensors(encoder))
    assert pooled.shape == (3, 16) and local.shape[::2] == (3, 16)


def test_a_width_that_the_heads_do_not_divide_is_an_error() -> None:
    with pytest.raises(ValueError, match="width=16 is not divisible by heads=3"):
        tiny(heads=3)


def test_texts_are_cut_to_max_length() -> None:
    encoder = tiny(max_length=6)
    assert tensors(encoder)[0].shape == (3, 6)
    encoder(*tensors(encoder))


# ------------------------------------------------------------------------------------------- folders from the hub


def test_hidden_states_of_bert_are_those_of_transformers(bert: Path) -> None:
    from transformers import BertModel

    encoder = HuggingFaceText(str(bert), pooling="mean", max_length=30).eval()
    ids, mask = tensors(encoder)
    own = BertModel.from_pretrained(bert).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled, local = encoder(ids, mask)
    assert (local - own).abs().max() < 1e-6 and encoder.dim == encoder.local_dim == 16
    assert (pooled - pool(own, mask, "mean")).abs().max() < 1e-6
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_hidden_states_of_roberta_are_those_of_transformers(roberta: Path) -> None:
    from transformers import RobertaModel

    encoder = HuggingFaceText(str(roberta), max_length=30).eval()
    ids, mask = tensors(encoder)
    own = RobertaModel.from_pretrained(roberta).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (encoder(ids, mask).local - own).abs().max() < 1e-6


def test_nodes_rebuild_the_towers_in_a_fresh_process_without_folder_or_network(
    bert: Path, roberta: Path, clip: Path, cxr_bert: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "moved"))
    towers = [
        tiny(pooling="eos"),
        HuggingFaceText(str(folder), max_length=30, last_layers=2, layer_mix="mean", checkpointing=True),
        HuggingFaceText(str(roberta), max_length=9),
        HuggingFaceText(str(clip), "eos", 40),
        HuggingFaceText(str(cxr_bert), max_length=40),
    ]
    shutil.rmtree(folder)
    builders.assert_rebuilt_elsewhere(tmp_path, towers)


def test_the_text_tower_of_clip_is_read_at_the_end_of_the_text(clip: Path) -> None:
    encoder = HuggingFaceText(str(clip), pooling="eos", max_length=40).eval()
    ids, mask = tensors(encoder)
    own = transformers.CLIPTextModel.from_pretrained(clip).eval()(input_ids=ids, attention_mask=mask)
    pooled, local = encoder(ids, mask)
    assert (local - own.last_hidden_state).abs().max() < 1e-6 and (pooled - own.pooler_output).abs().max() < 1e-6


def test_cxr_bert_is_a_plain_bert_without_its_heads(cxr_bert: Path) -> None:
    encoder = HuggingFaceText(str(cxr_bert), max_length=40)
    own = load_file(cxr_bert / "model.safetensors")
    assert all(torch.equal(value, own[f"bert.{key}"]) for key, value in encoder.model.state_dict().items())
    assert "37 tensors matched" in str(encoder.load_report) and "known heads ignored" in str(encoder.load_report)
    assert encoder.model.config.model_type == "bert" and encoder.tokenizer(SENTENCES) == PackedTokenizer(
        builders.DEFINITION, 40
    )(SENTENCES)


def test_the_mix_of_the_last_layers(bert: Path) -> None:
    ids, mask = tensors(HuggingFaceText(str(bert), max_length=40))
    model = transformers.BertModel.from_pretrained(bert).eval()
    layers = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for mix, expected in (("sum", layers[1] + layers[2]), ("mean", (layers[1] + layers[2]) / 2)):
        encoder = HuggingFaceText(str(bert), "mean", 40, last_layers=2, layer_mix=mix).eval()
        pooled, local = encoder(ids, mask)
        assert (local - expected).abs().max() < 1e-5 and (pooled - pool(expected, mask, "mean")).abs().max() < 1e-5
    for wrong in (0, 3):
        with pytest.raises(ValueError, match=f"last_layers={wrong}: the model has 2 layers"):
            HuggingFaceText(str(bert), max_length=40, last_layers=wrong)


def test_every_parameter_of_every_family_takes_part(bert: Path, roberta: Path, clip: Path, cxr_bert: Path) -> None:
    for folder in (bert, roberta, clip, cxr_bert):
        for layers in (1, 2):
            assert unused(HuggingFaceText(str(folder), "eos", 39, last_layers=layers)) == []


def test_checkpointing_gives_the_same_gradients_and_runs_layers_twice(bert: Path, clip: Path) -> None:
    for folder in (bert, clip):
        plain, saving = (HuggingFaceText(str(folder), "eos", 40, checkpointing=c) for c in (False, True))
        for (key, one), other in zip(gradients(plain).items(), gradients(saving).values(), strict=True):
            assert one is not None and other is not None and torch.allclose(one, other, atol=1e-4), key
        linear = [next(m for m in e.modules() if isinstance(m, torch.nn.Linear)) for e in (plain, saving)]
        assert [builders.passes_of(m, e) for m, e in zip(linear, (plain, saving), strict=True)] == [1, 2]


def test_half_precision_weights_become_single(bert: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    weights = {key: value.half() for key, value in load_file(part / "model.safetensors").items()}
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    rewrite(part / "config.json", dtype="float16")
    encoder = HuggingFaceText(str(part), max_length=30)
    assert features(encoder).pooled.dtype == torch.float32 and "dtype" not in encoder.node()["config"]


def test_nothing_in_a_folder_asks_for_a_network(bert: Path, cxr_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builders.refuse_network(monkeypatch)
    for folder in (bert, cxr_bert):
        HuggingFaceText(f"local-dir:{folder}", max_length=30)


def test_weights_with_unknown_tensors_or_other_shapes_are_refused(bert: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    weights = load_file(part / "model.safetensors")
    weights |= {"strange": torch.zeros(1), "embeddings.LayerNorm.weight": torch.zeros(3)}
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    message = (
        r"36 tensors matched, 1 unexpected \(strange\), 1 mismatched \(embeddings\.LayerNorm\.weight \[3\] for \[16\]\)"
    )
    with pytest.raises(ValueError, match=message):
        HuggingFaceText(str(part), max_length=30)


def test_a_damaged_tokenizer_is_named(bert: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    (part / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}}))
    with pytest.raises(ValueError, match=r"name=.*part: no tokenizer in .*part: "):
        HuggingFaceText(str(part), max_length=30)


def test_pretrained_weights_are_taken(bert: Path) -> None:
    loaded = HuggingFaceText(str(bert), max_length=30)
    torch.manual_seed(7)
    fresh = build(loaded.node(), TextEncoder, "text_encoder")
    name = "model.embeddings.word_embeddings.weight"
    assert not torch.equal(loaded.state_dict()[name], fresh.state_dict()[name])


def test_everything_wrong_with_a_folder_is_one_line(bert: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    (part / "config.json").unlink()
    (part / "tokenizer.json").unlink()
    (part / "model.safetensors").write_text(builders.LFS)
    with pytest.raises(ValueError) as caught:
        HuggingFaceText(str(part))
    assert str(caught.value) == (
        f"name={part}: no config.json; model.safetensors is a git-lfs pointer: run `git lfs pull` in the folder; "
        "no tokenizer (tokenizer.json or vocab.txt)"
    )


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        HuggingFaceText(str(tmp_path / "none"))


def test_weights_without_some_tensors_are_refused(bert: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    weights = load_file(part / "model.safetensors")
    lost = next(name for name in weights if name.endswith("encoder.layer.1.output.dense.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, part / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"36 tensors matched, 1 missing \(encoder\.layer\.1\.output\.dense\.weight\)"):
        HuggingFaceText(str(part), max_length=30)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    builders.save_text(tmp_path, vocab_size=50)
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, the model 50: they do not belong together"):
        HuggingFaceText(str(tmp_path), max_length=30)


def test_max_length_above_the_positions_is_refused(bert: Path) -> None:
    with pytest.raises(ValueError, match="max_length=41: the model has 40 positions"):
        HuggingFaceText(str(bert), max_length=41)
    HuggingFaceText(str(bert), max_length=40)


def test_roberta_keeps_places_for_padding(roberta: Path) -> None:
    """Its positions are counted from the padding id + 1: 40 embeddings serve 39 pieces."""
    encoder = HuggingFaceText(str(roberta), max_length=39).eval()
    encoder(*tensors(encoder, [" ".join(WORDS * 4)]))
    with pytest.raises(ValueError, match="max_length=40: the model has 39 positions"):
        HuggingFaceText(str(roberta), max_length=40)


OFFLINE = """
import time
from transformers import AutoConfig, AutoModel  # takes seconds by itself; what is measured is waiting for a network
from cxrcl.models.text import HuggingFaceText
started = time.monotonic()
try:
    HuggingFaceText("some-user/no-such-model")
except ValueError as error:
    print(round(time.monotonic() - started, 1), len(str(error).splitlines()), error)
"""


def test_a_hub_id_without_a_network_fails_soon_and_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    seconds, lines, message = done.stdout.split(" ", 2)
    assert float(seconds) < 5 and lines == "1"
    assert "name=some-user/no-such-model" in message and "give a local folder instead" in message


def test_both_kinds_of_attention_agree_and_travel_with_the_node() -> None:
    plain = tiny()
    assert plain.model.config._attn_implementation == plain.node()["attention"] == "eager"
    node = {key: value for key, value in plain.node().items() if key != "_target_"}
    fused = BertText(**{**node, "attention": "sdpa"})
    fused.load_state_dict(plain.state_dict())
    assert fused.model.config._attn_implementation == "sdpa"
    ids, mask = tensors(plain)
    torch.testing.assert_close(fused.eval()(ids, mask).pooled, plain.eval()(ids, mask).pooled, atol=1e-5, rtol=1e-5)


def test_code_of_a_downloaded_model_is_never_trusted() -> None:
    calls = 0
    for file in sorted((ROOT / "cxrcl" / "models").glob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        settings = {  # keyword arguments that are kept in a variable
            node.targets[0].id: {
                ast.unparse(key): value for key, value in zip(node.value.keys, node.value.values) if key
            }
            for node in nodes
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Dict)
        }
        for node in nodes:
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("from_pretrained", "from_config"):
                continue
            given = {word.arg: word.value for word in node.keywords if word.arg}
            for word in node.keywords:
                if word.arg is None:
                    given |= {key.strip("'"): value for key, value in settings[ast.unparse(word.value)].items()}
            trust = given.get("trust_remote_code")
            assert isinstance(trust, ast.Constant) and trust.value is False, f"{file.name}:{node.lineno}"
            calls += 1
    assert calls >= 5
