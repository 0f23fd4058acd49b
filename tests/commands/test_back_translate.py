"""scripts/prepare.py back-translate: the real command with two tiny models, what is kept, and going on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cxrcl.commands import prepare
from cxrcl.data import back_translation, manifest
from cxrcl.data.back_translation import JOURNAL, Translator, difference, read_journal, there_and_back, translate
from cxrcl.errors import ConfigError, DataError

# ------------------------------------------------------------------------------------------ what is not used


@pytest.mark.parametrize(
    ("sentence", "rewritten", "reason"),
    [
        ("The heart is enlarged.", "Enlarged heart.", None),
        ("The heart is enlarged.", " . ", "no translation"),
        ("A nodule of 2.5 cm.", "A 2,5 cm nodule.", None),
        ("A nodule of 2.5 cm.", "A 25 cm nodule.", "other numbers"),
        ("A nodule of 2 cm, once 2 cm.", "A nodule of 2 cm.", "other numbers"),
        ("Two clips.", "2 clips.", "other numbers"),
        ("Left-sided effusion.", "Effusion on the left.", None),
        ("Left effusion.", "Right effusion.", "other sides"),
        ("Left effusion.", "Effusion.", "other sides"),
        ("Bilateral effusions.", "Effusions on both sides.", None),
        ("Bilateral effusions.", "Effusions.", "other sides"),
        ("Derrame izquierdo.", "Derrame en el lado derecho.", "other sides"),
        ("No pneumothorax.", "Without pneumothorax.", None),
        ("No pneumothorax.", "Pneumothorax.", "other negations"),
        ("There isn't an effusion.", "There is no effusion.", None),
        ("There is an effusion.", "There isn’t an effusion.", "other negations"),
        ("The lungs cannot be seen.", "The lungs can be seen.", "other negations"),
        ("Sin derrame.", "Con derrame.", "other negations"),
        ("Notable nodule, normal bone.", "Known nodule, abnormal bone.", None),  # words, not parts of words
    ],
)
def test_a_rewriting_must_keep_the_meaning(sentence: str, rewritten: str, reason: str | None) -> None:
    assert difference(sentence, rewritten) == reason
    if reason not in (None, "no translation"):
        assert difference(rewritten, sentence) == reason


# ------------------------------------------------------------------------------------------------ the journal

SETTINGS = {"there": "a", "back": "b", "num_beams": 1}


def upper(batch: Sequence[str]) -> list[str]:
    return [text.upper() for text in batch]


def test_the_journal_goes_on_after_an_interruption(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    sentences = {f"Sentence {'x' * k}.\u2028" for k in range(7)}
    assert read_journal(file, SETTINGS) == {}

    def stopped(batch: Sequence[str]) -> list[str]:
        if len(file.read_text().splitlines()) > 4:
            raise KeyboardInterrupt
        return upper(batch)

    with pytest.raises(KeyboardInterrupt):
        translate(sentences, stopped, 2, file)
    with file.open("a") as journal:
        journal.write('["Sentence .", "SENT')  # the process ended here
    known = read_journal(file, SETTINGS)
    assert len(known) == 4 and all(new == old.upper() for old, new in known.items())
    batches: list[Sequence[str]] = []
    translate(sentences - known.keys(), lambda batch: batches.append(batch) or upper(batch), 2, file)
    assert [len(batch) for batch in batches] == [2, 1]
    assert read_journal(file, SETTINGS) == {sentence: sentence.upper() for sentence in sentences}


def test_the_longest_sentences_come_first(tmp_path: Path) -> None:
    seen: list[str] = []
    translate(["b", "aaa", "aa", "a"], lambda batch: seen.extend(batch) or upper(batch), 3, tmp_path / "journal")
    assert seen == ["aaa", "aa", "a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({**SETTINGS, "num_beams": 5}) + '\n["a", "b"]\n', "was begun with num_beams=5: remove it"),
        ('{"there": "c"}\n["a", "b"]\n', "was begun with there=c, back=None, num_beams=None"),
        (json.dumps(SETTINGS) + "\nnonsense\n[]\n", "cannot be read"),
        ("[1, 2]\n", "cannot be read"),
    ],
)
def test_another_journal_is_not_gone_on_with(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / JOURNAL).write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        read_journal(tmp_path / JOURNAL, SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_journal_that_holds_nothing_is_begun_anew(tmp_path: Path) -> None:
    """As after a mistyped name of a model."""
    read_journal(tmp_path / JOURNAL, {**SETTINGS, "there": "mistyped"})
    assert read_journal(tmp_path / JOURNAL, SETTINGS) == {}
    assert json.loads((tmp_path / JOURNAL).read_text()) == SETTINGS


# ------------------------------------------------------------------------------------------------ the command

# Two languages of few sentences; the way back loses a number, a negation and a side.
FORTH = {
    "The heart is large.": "coeur grand .",
    "The lungs are clear.": "poumons clairs .",
    "The film is clear.": "film clair .",
    "2 films seen.": "films vus .",
    "No bone is seen.": "os vu .",
    "Left.": "droite .",
}
BACK = {
    "coeur grand .": "large heart .",
    "poumons clairs .": "clear lungs .",
    "film clair .": "clear film .",
    "films vus .": "films seen .",
    "os vu .": "bone seen .",
    "droite .": "right .",
}


def save_model(folder: Path, kind: str, pairs: dict[str, str]) -> str:
    """A tiny model that has learnt some sentences by heart, and a tokenizer of words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = {word for text in [*pairs, *pairs.values()] for word in text.lower().replace(".", " . ").split()}
    pieces = ["<pad>", "</s>", "<unk>", *sorted(words)]
    backend = Tokenizer(models.WordLevel({piece: k for k, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.save_pretrained(folder)

    torch.manual_seed(0)
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "dropout": 0.0}
    if kind == "t5":
        sizes = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
        model: Any = T5ForConditionalGeneration(T5Config(vocab_size=len(pieces), **sizes, **ids))
    else:
        layers = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
        layers |= {f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")}
        sizes = {"d_model": 32, "max_position_embeddings": 24, "forced_eos_token_id": None}
        model = MarianMTModel(MarianConfig(vocab_size=len(pieces), **layers, **sizes, **ids))
    given, wanted = (tokenizer(list(texts), return_tensors="pt", padding=True) for texts in (pairs, pairs.values()))
    labels = wanted["input_ids"].masked_fill(wanted["attention_mask"] == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=labels).loss
        if loss.item() < 0.03:
            break
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return str(folder)


REPORTS = [
    {"findings": "The heart is large. The lungs are clear.", "impression": "2 films seen."},
    {"findings": "The lungs are clear. No bone is seen.", "impression": ""},
    {"text": "1. The film is clear. XXXX"},
    {"text": ""},
    {"findings": "Left.", "impression": "Bone " * 40 + "."},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return save_model(folder / "there", "marian", FORTH), save_model(folder / "back", "t5", BACK)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five rows as prepare.py writes them: films behind a link, a card."""
    (tmp_path / "films").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "films", target_is_directory=True)
    rows = []
    for k, report in enumerate(REPORTS):
        (tmp_path / f"films/{k}.png").touch()
        film = {"image": f"images/{k}.png", "patient": f"00{k}", "study": k, "view": "PA", "split": "train"}
        rows.append(
            film | {"findings": "", "impression": "", "text": "", "Edema": ["1", "0", "-1", "", ""][k]} | report
        )
    pd.DataFrame(rows).to_csv(tmp_path / "data/manifest.csv", index=False)
    card = {"notes": ["split: mine", "text_augment: earlier"], "dropped": {"films without a head": 3}}
    (tmp_path / "data/card.json").write_text(json.dumps(card))
    return tmp_path / "data"


@pytest.fixture
def run(data: Path, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., pd.DataFrame]:
    """Runs the command; returns the manifest that it wrote."""

    def command(out: Path, *options: str) -> pd.DataFrame:
        words = [
            "--manifest",
            data,
            "--there",
            models[0],
            "--back",
            models[1],
            "--out",
            out,
            "--device",
            "cpu",
            *options,
        ]
        monkeypatch.setattr("sys.argv", ["prepare.py", "back-translate", *map(str, words)])
        prepare.run()
        return pd.read_csv(out / "manifest.csv", dtype=str, keep_default_na=False)

    return command


def test_the_command_adds_a_column_and_a_note(run: Callable[..., pd.DataFrame], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = run(out, "--batch-size", "2")
    before = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table.drop(columns="text_augment")[before.columns], before)
    assert table["text_augment"].tolist() == [
        "large heart. clear lungs. 2 films seen.",
        "clear lungs. No bone is seen.",
        "clear film.",
        "",
        "",  # another side, and a sentence that is longer than the first model can read
    ]
    assert (out / "images").resolve() == (tmp_path / "films").resolve()
    assert len(manifest.load(out)) == 5
    card = json.loads((out / "card.json").read_text())
    kept = "1: no translation, 1: other negations, 1: other numbers, 1: other sides"
    assert card["notes"] == [
        "split: mine",
        f"text_augment: 3 of 7 sentences translated there and back (kept as they were: {kept}), by there and back",
    ]
    assert card["dropped"] == {"films without a head": 3} and card["options"]["num_beams"] == 1


def test_nothing_is_translated_twice(
    run: Callable[..., pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    journal = out / JOURNAL
    calls: list[int] = []
    call = Translator.__call__

    def stops(self: Translator, sentences: Sequence[str]) -> list[str]:
        calls.append(len(sentences))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, sentences)

    monkeypatch.setattr(Translator, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        run(out, "--batch-size", "2")
    assert calls == [2, 2, 2] and len(journal.read_text().splitlines()) == 3 and not (out / "manifest.csv").exists()
    table = run(out, "--batch-size", "2")
    assert sum(calls[3:]) == 2 * 5
    written, done = journal.read_bytes(), len(calls)
    with pytest.raises(DataError, match="exists: write over it with --force"):
        run(out)
    pd.testing.assert_frame_equal(run(out, "--overwrite"), table)
    assert len(calls) == done and journal.read_bytes() == written
    with pytest.raises(DataError, match="was begun with num_beams=1"):
        run(out, "--force", "--num-beams", "2")


def test_what_has_no_end_is_no_translation(models: tuple[str, str]) -> None:
    forth, back = (Translator("", name, 1, "auto") for name in models)
    assert forth(["Left.", "The heart is large."]) == ["droite .", "coeur grand ."]
    assert forth(["Left. " * 11 + "Left", "Left. " * 12])[1] == ""  # 24 positions
    assert back(["os vu . " * 300, "os vu ."]) == ["", "bone seen ."]  # T5 states no number of positions
    back.model.lm_head.weight.data[1] = 0  # never the end
    assert back(["os vu ."]) == [""]


def test_nothing_is_not_translated_back() -> None:
    both = there_and_back(lambda batch: ["", "x", " "], lambda batch: ["made up", "y", "made up"])
    assert both(["a", "b", "c"]) == ["", "y", ""]


def test_the_beams_reach_the_model(models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    translator = Translator("", models[0], 3, "cpu")
    generate, seen = translator.model.generate, []
    monkeypatch.setattr(translator.model, "generate", lambda **given: seen.append(given) or generate(**given))
    assert translator(["Left."]) == ["droite ."]
    assert seen[0]["num_beams"] == 3 and seen[0]["do_sample"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--there", "{tmp}"], r"--there .*: no translation model: "),
        (["--batch-size", "0"], "expected 1 or more"),
        (["--device", "nowhere"], "nowhere"),
        (["--manifest", "{tmp}"], r"manifest\.csv: not found: name the folder of a prepared data set"),
        (["--manifest", "{tmp}/none"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(run: Callable[..., pd.DataFrame], tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises((DataError, ConfigError), match=said) as caught:
        run(tmp_path / "out", *(option.format(tmp=tmp_path) for option in options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("installed", [True, False])
def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(back_translation, "find_spec", lambda name: object() if installed else None)
    with pytest.raises(DataError, match="no translation model") as caught:
        Translator("--there", str(tmp_path), 1, "cpu")
    assert ("cxrcl[translate]" in str(caught.value)) is not installed


def test_a_manifest_without_reports_is_one_line(run: Callable[..., pd.DataFrame], data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / "manifest.csv", dtype=str).drop(columns=["findings", "impression", "text"])
    table.to_csv(data / "manifest.csv", index=False)
    with pytest.raises(DataError, match="no report in it"):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
