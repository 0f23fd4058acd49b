"""Back translation of reports: two models translate each sentence into another language and back.

This gives the second text of CXR-CLIP (You et al. 2023, section 3.1). A sentence that comes back with other numbers,
sides or negations stays as it is: a rewriting must not change the findings.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cxrcl.data.manifest import FILE_NAME, OPTIONAL, REQUIRED
from cxrcl.data.sources.base import Prepared, read_table
from cxrcl.data.text.reports import ReportSampler, clean
from cxrcl.errors import DataError, first_line

COLUMN = "text_augment"
JOURNAL = "back_translation.jsonl"
Translate = Callable[[Sequence[str]], Sequence[str]]

# A rewriting must keep these, in English and Spanish; the number of matches of each kind is compared, not the words.
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SIDES = {
    "left": re.compile(r"\b(?:left|izquierd[oa]s?)\b", re.IGNORECASE),
    "right": re.compile(r"\b(?:right|derech[oa]s?)\b", re.IGNORECASE),
    "both": re.compile(r"\b(?:bilateral(?:ly|es)?|both|amb[oa]s)\b", re.IGNORECASE),
}
_NEGATION = re.compile(
    r"\b(?:no|not|non|none|never|neither|nor|without|cannot|absent|absence|lack|negative|free of"
    r"|sin|ni|ning[uú]n[oa]?|nunca|tampoco|ausen(?:te|cia)|negativ[oa])\b|n['’]t\b",
    re.IGNORECASE,
)


def difference(sentence: str, rewritten: str) -> str | None:
    """Why a rewriting must not be used; None where it may be."""
    if not re.search(r"\w", rewritten):
        return "no translation"
    numbers = [Counter(n.replace(",", ".") for n in _NUMBER.findall(text)) for text in (sentence, rewritten)]
    if numbers[0] != numbers[1]:
        return "other numbers"
    if any(len(side.findall(sentence)) != len(side.findall(rewritten)) for side in _SIDES.values()):
        return "other sides"
    if len(_NEGATION.findall(sentence)) != len(_NEGATION.findall(rewritten)):
        return "other negations"
    return None


def rewrite(
    source: Path, out: Path, *, there: str, back: str, batch_size: int = 64, num_beams: int = 1, device: str = "auto"
) -> Prepared:
    """Add the column text_augment: each report translated into another language and back, sentence by sentence.

    OUT/back_translation.jsonl keeps each batch of translations: the same command goes on after an interruption.

    Args:
        there: the model from the language of the reports: a folder with a Hugging Face translation model and its
            tokenizer (MarianMT, T5, ...), or the name of one on the hub.
        back: the model back into the language of the reports.
        batch_size: sentences translated at a time.
        num_beams: of the beam search; 1 takes the most likely token at each place.
        device: a device of PyTorch, such as cpu; auto takes an accelerator where there is one.
    """
    if batch_size < 1 or num_beams < 1:
        raise DataError(f"--batch-size {batch_size}, --num-beams {num_beams}: expected 1 or more")
    table = read_table(source / FILE_NAME, REQUIRED, "name the folder of a prepared data set")
    sampler = ReportSampler(("findings", "impression"), min_words=1, augmented=False)
    columns = [name for name in ("findings", "impression", "text") if name in table]
    reports = [sampler.read(dict(zip(columns, cells))).sentences for cells in zip(*(table[name] for name in columns))]
    wanted = {sentence for report in reports for sentence in report}
    if not wanted:
        raise DataError(f"{source / FILE_NAME}: no report in it: findings, impression and text are blank or missing")

    settings = {"there": _identity(there), "back": _identity(back), "num_beams": num_beams}
    out.mkdir(parents=True, exist_ok=True)
    translations = read_journal(out / JOURNAL, settings)
    if wanted - translations.keys():
        forth, home = (Translator(f"--{k}", v, num_beams, device) for k, v in (("there", there), ("back", back)))
        translations |= translate(wanted - translations.keys(), there_and_back(forth, home), batch_size, out / JOURNAL)

    rewritten, counts = _checked({sentence: translations[sentence] for sentence in wanted})
    texts = [" ".join(rewritten[sentence] for sentence in report) for report in reports]
    table[COLUMN] = [new if new != " ".join(old) else "" for new, old in zip(texts, reports)]
    return _prepared(table, source, [f"{COLUMN}: {_summary(counts)}, by {Path(there).name} and {Path(back).name}"])


def _checked(translations: Mapping[str, str]) -> tuple[dict[str, str], Counter[str]]:
    """The sentence to use for each sentence, and how many were rewritten or kept, by reason."""
    chosen, counts = {}, Counter[str]()
    for sentence, translated in translations.items():
        new = clean(translated)
        reason = difference(sentence, new) or ("the same words" if new == sentence else None)
        chosen[sentence] = sentence if reason else new
        counts[reason or "rewritten"] += 1
    return chosen, counts


def _summary(counts: Counter[str]) -> str:
    kept = ", ".join(f"{number}: {reason}" for reason, number in sorted(counts.items()) if reason != "rewritten")
    summary = f"{counts['rewritten']} of {counts.total()} sentences translated there and back"
    return summary + (f" (kept as they were: {kept})" if kept else "")


def _prepared(table: Any, source: Path, notes: Sequence[str]) -> Prepared:
    """The same data set with another table; what its card says stays, with these notes."""
    file = source / "card.json"
    card = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    images = source
    if table["image"].str.startswith("images/").all():  # the link of a prepared folder: not a link to a link
        images, table["image"] = source / "images", table["image"].str.removeprefix("images/")
    labels = tuple(name for name in table if name not in (*REQUIRED, *OPTIONAL))
    earlier = [note for note in card.get("notes", ()) if not note.startswith(f"{COLUMN}: ")]
    return Prepared(table, labels, images, card.get("dropped", {}), [*earlier, *notes])


# ------------------------------------------------------------------------------------------------- journal


def _identity(model: str) -> str:
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def read_journal(file: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Sentence -> its translation there and back, from the journal; begins the file where there is none.

    A last line that the end of a process has cut is removed.

    Raises:
        DataError: it holds translations that were made with other settings.
    """
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        file.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return {}
    if whole != content:
        with file.open("r+b") as handle:
            handle.truncate(len(whole))
    try:
        first, *pairs = map(json.loads, whole.decode().splitlines())
        begun, translations = dict(first), dict(pairs)
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: cannot be read ({error}): remove it, to translate all sentences again") from None
    if begun != settings and not translations:  # such as after a mistyped name: nothing is lost
        file.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    elif begun != settings:
        changed = ", ".join(f"{k}={begun.get(k)}" for k in settings if begun.get(k) != settings[k])
        raise DataError(f"{file} was begun with {changed}: remove it, or name another --out")
    return translations


def there_and_back(forth: Translate, home: Translate) -> Translate:
    """A translation there and back; '' where the first is empty, whatever the second model makes of that."""

    def both(batch: Sequence[str]) -> list[str]:
        abroad = forth(batch)
        return [new if middle.strip() else "" for middle, new in zip(abroad, home(abroad), strict=True)]

    return both


def translate(sentences: Iterable[str], both_ways: Translate, batch_size: int, file: Path) -> dict[str, str]:
    """Translate, and write each batch into the journal. The longest come first: too large a batch fails at once."""
    todo = sorted(sentences, key=lambda s: (-len(s), s))
    translations: dict[str, str] = {}
    with file.open("a", encoding="utf-8") as journal, tqdm(total=len(todo), unit=" sentences", disable=None) as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            pairs = list(zip(batch, both_ways(batch), strict=True))
            journal.writelines(json.dumps(pair) + "\n" for pair in pairs)
            journal.flush()
            translations.update(pairs)
            bar.update(len(batch))
    return translations


# -------------------------------------------------------------------------------------------------- models


class Translator:
    """A Hugging Face sequence-to-sequence model: sentences -> sentences, without sampling.

    Args:
        option: the option that names it, for messages.
        name: a folder, or a name on the hub. Remote code is never run.

    Raises:
        DataError: it cannot be loaded, in one line.
    """

    def __init__(self, option: str, name: str, num_beams: int, device: str) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        if device == "auto":
            accelerator = torch.accelerator.current_accelerator(check_available=True)
            device = str(accelerator or "cpu")
        folder = Path(name).expanduser()
        place = str(folder) if folder.is_dir() else name
        options = {"trust_remote_code": False, "local_files_only": folder.is_dir()}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(place, **options)
            self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(place, **options)
            self.model.to(torch.device(device)).eval()
        except Exception as error:  # the parsers raise errors of many kinds where a file or package is missing
            hint = "" if find_spec("sentencepiece") else "; MarianMT needs pip install 'cxrcl[translate]'"
            raise DataError(f"{option} {name}: no translation model: {first_line(error)}{hint}") from None
        self.num_beams = num_beams
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        self.limit = min(self.tokenizer.model_max_length, positions)

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        """Translations; '' for a sentence that the model cannot read to its end, and for a translation without one."""
        import torch

        batch = self.tokenizer(
            list(sentences), return_tensors="pt", padding=True, truncation=True, max_length=self.limit
        ).to(self.model.device)
        sizes = batch["attention_mask"].sum(dim=1)  # the limit where a sentence was cut
        with torch.inference_mode():
            ids = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                num_beams=self.num_beams,
                do_sample=False,
                max_new_tokens=min(2 * batch["input_ids"].shape[1] + 16, self.limit - 1),
            )
        ends = torch.isin(ids[:, 1:], torch.tensor(self.model.generation_config.eos_token_id, device=ids.device))
        whole = (ends.any(dim=1) & (sizes < self.limit)).tolist()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text if good else "" for text, good in zip(texts, whole, strict=True)]
