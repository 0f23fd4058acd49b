"""Small folders of weights, as a person would download them, and the reference models they were written from."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from helpers import ROOT
from safetensors.torch import save_file
from torch import Tensor, nn

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.tokenizer import learn_wordpiece, vocabulary_size
from cxrcl.types import Features

WORDS = ["heart", "lung", "enlarged", "normal", "effusion", "edema", "small", "left", "right"]
WORDS += ["pleural", "opacity", "no", "there", "is", "of", "the", "in", "base"]
TEXTS = [" ".join(WORDS[(k * step) % len(WORDS)] for k in range(1, 7)) + "." for step in range(1, 60)]
DEFINITION = learn_wordpiece(TEXTS, 120)
SENTENCES = ["the heart is enlarged.", "no effusion", "small left pleural effusion in the right lung base."]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def perturb(module: nn.Module) -> Any:
    """Fresh norms are all ones and zeros: weights laid at the wrong place would go unseen."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def bert_sizes(**settings: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return sizes | {"vocab_size": vocabulary_size(DEFINITION), "max_position_embeddings": 40} | settings


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(DEFINITION), **SPECIAL).save_pretrained(folder)


def save_text(folder: Path, kind: str = "bert", **settings: Any) -> Any:
    """A Hugging Face folder with a text model, which is returned."""
    from transformers import BertConfig, BertForPreTraining, BertModel, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    sizes = bert_sizes(**settings)
    if kind == "roberta":
        special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        model: Any = RobertaModel(RobertaConfig(**sizes, **special, type_vocab_size=1))
    else:
        model = (BertForPreTraining if kind == "pretraining" else BertModel)(BertConfig(**sizes))
    perturb(model).save_pretrained(folder)
    save_tokenizer(folder)
    return model


def rewrite(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def pictures(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def tensors(encoder: Any, texts: list[str] = SENTENCES) -> tuple[Tensor, Tensor]:
    ids, mask, _ = encoder.tokenizer(texts)
    return torch.tensor(ids), torch.tensor(mask)


def features(encoder: nn.Module) -> Features:
    if isinstance(encoder, TextEncoder):
        return encoder(*tensors(encoder))
    assert isinstance(encoder, ImageEncoder)
    return encoder(pictures(encoder.spec.size))


def gradients(encoder: nn.Module, use_local: bool = True) -> dict[str, Tensor | None]:
    """By name, of the parameters that are trained; dropout draws the same numbers at each call."""
    encoder.zero_grad()
    torch.manual_seed(3)
    pooled, local = features(encoder.train())
    ((pooled**2 * torch.arange(pooled.shape[1])).sum() + ((local**2).sum() if use_local else 0)).backward()
    return {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}


def unused(encoder: nn.Module) -> list[str]:
    """Trained parameters that pooled features do not depend on."""
    return [name for name, gradient in gradients(encoder, use_local=False).items() if gradient is None]


def passes_of(module: nn.Module, encoder: nn.Module) -> int:
    """How often a part of an encoder is gone through in a forward and a backward pass."""
    count = [0]
    hook = module.register_forward_pre_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    gradients(encoder)
    hook.remove()
    return count[0]


FRESH = """
import socket, sys, torch
def refused(*_):
    raise AssertionError("a network was asked for")
socket.socket.connect = socket.getaddrinfo = refused
from cxrcl.config.nodes import build
from cxrcl.models.base import ImageEncoder
from cxrcl.models.base import TextEncoder
torch.set_num_threads(1)
for path in sys.argv[1:]:
    node, weights, inputs, pooled, local, spec = torch.load(path)
    encoder = build(node, ImageEncoder if spec else TextEncoder, "encoder").eval()
    assert encoder.node() == node, (encoder.node(), node)
    encoder.load_state_dict(weights)
    if spec:
        assert (encoder.spec.size, *encoder.spec.mean, *encoder.spec.std) == spec
    else:
        ids, mask, _ = encoder.tokenizer(inputs)
        inputs = [torch.tensor(ids), torch.tensor(mask)]
    with torch.no_grad():
        found = encoder(*inputs)
    assert torch.equal(found.pooled, pooled) and torch.equal(found.local, local), path
    print("equal")
"""


def assert_rebuilt_elsewhere(folder: Path, encoders: list[Any]) -> None:
    """Nodes rebuild the towers in a fresh process without folder and network; weights are laid in afterwards."""
    kept = []
    for k, encoder in enumerate(encoders):
        perturb(encoder)
        image = isinstance(encoder, ImageEncoder)
        spec = (encoder.spec.size, *encoder.spec.mean, *encoder.spec.std) if image else None
        inputs = [pictures(encoder.spec.size)] if image else SENTENCES
        with torch.no_grad():
            found = features(encoder)
        torch.save((encoder.node(), encoder.state_dict(), inputs, *found, spec), folder / f"{k}.pt")
        kept.append(str(folder / f"{k}.pt"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *kept], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equal"] * len(encoders)


# ------------------------------------------------------------------------------------------ open_clip

COLOURS = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
PLAIN_TEXT = {"context_length": 20, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
CLIP = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": PLAIN_TEXT}
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"


def save_open_clip(folder: Path, config: dict[str, Any], bert: Path | None = None) -> Any:
    """A folder of open_clip's own model, which is returned."""
    torch.manual_seed(0)
    made = copy.deepcopy(config)
    if bert is not None:
        made["text_cfg"] |= {"hf_model_name": str(bert), "hf_model_pretrained": False}
        save_tokenizer(folder)
    model = perturb((open_clip.CLIP if bert is None else open_clip.CustomTextCLIP)(**made))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / OPEN_CLIP_WEIGHTS)
    content = {"model_cfg": config, "preprocess_cfg": COLOURS}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return model
