"""Text towers against transformers itself."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT
from torch import Tensor

from cxrcl.config import build
from cxrcl.models.text import BertText, HuggingFaceText, TinyText, pool
from cxrcl.models.tokenizer import learn_wordpiece, vocabulary_size
from cxrcl.types import TextEncoder

WORDS = ["heart", "lung", "enlarged", "normal", "effusion", "edema", "small", "left", "right"]
WORDS += ["pleural", "opacity", "no", "there", "is", "of", "the", "in", "base"]
TEXTS = [" ".join(WORDS[(k * step) % len(WORDS)] for k in range(1, 7)) + "." for step in range(1, 60)]
DEFINITION = learn_wordpiece(TEXTS, 120)
SENTENCES = ["the heart is enlarged.", "no effusion", "small left pleural effusion in the right lung base."]


class Corpus:
    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        return fit(TEXTS)


def tiny(**arguments: Any) -> TinyText:
    torch.manual_seed(0)
    return TinyText(Corpus(), **{"width": 16, "depth": 1, "heads": 2, "max_length": 24, **arguments})


def save_folder(folder: Path, kind: str = "bert", **settings: Any) -> Path:
    """A Hugging Face folder as a person would download it."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"vocab_size": vocabulary_size(DEFINITION), "max_position_embeddings": 40, **settings}
    if kind == "bert":
        model: Any = BertModel(BertConfig(**sizes))
    else:
        model = RobertaModel(RobertaConfig(**sizes, pad_token_id=0, bos_token_id=2, eos_token_id=3, type_vocab_size=1))
    model.save_pretrained(folder)
    from tokenizers import Tokenizer

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(DEFINITION), **special)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("roberta"), "roberta")


def tensors(encoder: BertText, texts: list[str] = SENTENCES) -> tuple[Tensor, Tensor]:
    ids, mask, _ = encoder.tokenizer(texts)
    return torch.tensor(ids), torch.tensor(mask)


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


FRESH = """
import sys, torch
from cxrcl.config import build
from cxrcl.types import TextEncoder
torch.set_num_threads(1)
for path in sys.argv[1:]:
    node, weights, sentences, pooled, local = torch.load(path)
    encoder = build(node, TextEncoder, "text_encoder").eval()
    encoder.load_state_dict(weights)
    ids, mask, _ = encoder.tokenizer(sentences)
    found = encoder(torch.tensor(ids), torch.tensor(mask))
    assert torch.equal(found.pooled, pooled) and torch.equal(found.local, local), path
    print("equal")
"""


def test_nodes_rebuild_the_towers_in_a_fresh_process_without_folder_or_network(
    bert: Path, roberta: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "moved"))
    towers = [
        tiny(pooling="eos"),
        HuggingFaceText(str(folder), max_length=30),
        HuggingFaceText(str(roberta), max_length=9),
    ]
    shutil.rmtree(folder)
    kept = []
    for k, encoder in enumerate(towers):
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(0.01)
            features = encoder.eval()(*tensors(encoder))
        torch.save((encoder.node(), encoder.state_dict(), SENTENCES, *features), tmp_path / f"{k}.pt")
        kept.append(str(tmp_path / f"{k}.pt"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *kept], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal"] * 3


def test_pretrained_weights_are_taken(bert: Path) -> None:
    loaded = HuggingFaceText(str(bert), max_length=30)
    torch.manual_seed(7)
    fresh = build(loaded.node(), TextEncoder, "text_encoder")
    name = "model.embeddings.word_embeddings.weight"
    assert not torch.equal(loaded.state_dict()[name], fresh.state_dict()[name])


def test_all_missing_files_are_listed_at_once(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks config\.json; weights .*; tokenizer"):
        HuggingFaceText(str(tmp_path))
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    (part / "config.json").unlink()
    (part / "tokenizer.json").unlink()
    with pytest.raises(
        ValueError, match=r"the folder lacks config\.json; tokenizer \(tokenizer\.json or vocab\.txt\)$"
    ):
        HuggingFaceText(str(part))


def test_a_git_lfs_pointer_is_recognised(bert: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(bert, tmp_path / "part"))
    (part / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    with pytest.raises(ValueError, match=r"model\.safetensors is a git-lfs pointer: run `git lfs pull`"):
        HuggingFaceText(str(part))


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        HuggingFaceText(str(tmp_path / "none"))


def test_weights_without_some_tensors_are_refused(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    part = Path(shutil.copytree(bert, tmp_path / "part"))
    weights = load_file(part / "model.safetensors")
    lost = next(name for name in weights if name.endswith("encoder.layer.1.output.dense.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, part / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"the weights lack 1 of the model's tensors, such as .*layer\.1\.output\.dense"
    ):
        HuggingFaceText(str(part), max_length=30)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path, vocab_size=50)
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ pieces, the model 50: they do not belong together"):
        HuggingFaceText(str(folder), max_length=30)


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
        [sys.executable, "-c", OFFLINE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
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
    assert calls >= 6
