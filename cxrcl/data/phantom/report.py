"""Reports whose labels are right by construction: every sentence carries the label values it states.

A label is 1 when a sentence affirms it, 0 when one denies it, -1 when one hedges and blank when none speaks of it:

* findings that are drawn and certain are affirmed, faint ones are hedged;
* only what is not drawn may be denied. "The lungs are clear" denies Lung Opacity and Consolidation, so it is not said
  beside any lung disease; consolidation and pneumonia are not denied beside another airspace disease;
* patchy pneumonia also states Lung Opacity, lobar pneumonia also states Consolidation; a lone opacity or consolidation
  may be followed by the opinion that pneumonia is possible (-1). Edema, atelectasis, nodules and lone consolidations
  leave Lung Opacity blank;
* No Finding is 1 when a study without any pathology (devices allowed) is called normal, 0 with an affirmed pathology,
  blank with hedged ones only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .lesions import nodule_radius
from .phrases import PHRASES
from .study import Finding, Study

_IMAGE_CM = 40.0
BLOCKS = {  # label -> drawn kinds beside which it is not denied, apart from itself
    "Lung Opacity": {"Consolidation", "Pneumonia", "Edema", "Lung Lesion", "Atelectasis"},
    "Consolidation": {"Lung Opacity", "Pneumonia"},
    "Pneumonia": {"Lung Opacity", "Consolidation"},
}
_RANK = {"Support Devices": 0, "Cardiomegaly": 2, "Enlarged Cardiomediastinum": 3, "Fracture": 9}


@dataclass(frozen=True)
class Sentence:
    """Text, the label values it states and its place in the report (small first)."""

    text: str
    states: dict[str, int]
    rank: float = 0.0


@dataclass(frozen=True)
class Report:
    """Sentences of the two sections."""

    findings: tuple[Sentence, ...]
    impression: tuple[Sentence, ...]

    @property
    def labels(self) -> dict[str, int]:
        """Union of what the sentences state; raises if two of them disagree."""
        labels: dict[str, int] = {}
        for sentence in self.findings + self.impression:
            for label, value in sentence.states.items():
                if labels.setdefault(label, value) != value:
                    raise ValueError(f"report contradicts itself on {label}: {sentence.text}")
        return labels


def text_of(sentences: tuple[Sentence, ...]) -> str:
    """Section as one string."""
    return " ".join(s.text for s in sentences)


def write_report(study: Study, rng: np.random.Generator) -> Report:
    """Report of 3-8 findings sentences and 1-4 impression sentences."""
    positive = [describe(f, rng) for f in study.findings]
    drawn = {f.kind for f in study.findings}
    stated = {label for s in positive for label in s.states}
    room = 8 - len(positive)
    remarks = _remarks(study, rng)[: max(room - 2, 0)]
    wanted = int(rng.integers(4, 8)) - len(positive) - len(remarks)
    findings = positive + remarks + _negations(drawn | stated, min(max(wanted, 1), room - len(remarks)), rng)
    impression = conclude(study, rng)
    findings.sort(key=lambda s: s.rank + rng.uniform(0, 1.5))
    return Report(tuple(findings), tuple(impression))


def expand(template: str, rng: np.random.Generator) -> str:
    """Resolve every [a|b|...] by a random choice."""
    while match := re.search(r"\[([^\[\]]*)\]", template):
        options = match[1].split("|")
        template = template[: match.start()] + options[rng.integers(len(options))] + template[match.end() :]
    return template


def pick(templates: Sequence[str], rng: np.random.Generator) -> str:
    return expand(templates[int(rng.integers(len(templates)))], rng)


def tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return text[0].upper() + text[1:]


def states_of(f: Finding) -> dict[str, int]:
    """Label values stated by the sentence about a finding."""
    value = 1 if f.certain else -1
    states = {f.kind: value}
    if f.kind == "Pneumonia":
        states["Lung Opacity" if f.form == "patchy" or not f.certain else "Consolidation"] = value
    if f.kind != "Support Devices" and f.certain:
        states["No Finding"] = 0
    return states


def _of(f: Finding, table: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Texts of the form of a finding, else of its label."""
    form = "multiple" if f.kind == "Lung Lesion" and f.count > 1 else f.form
    return table.get(f"{f.kind}/{form}", table.get(f.kind, ()))


def _slots(f: Finding, rng: np.random.Generator) -> dict[str, str]:
    # of scattered nodules the largest is placed, and that one is drawn on the first side
    side = "right" if f.kind == "Lung Lesion" and f.side == "bilateral" else f.side
    both = side == "bilateral"
    level = 0 if f.severity < 0.55 else 1 if f.severity < 0.78 else 2
    zone = f.zone if f.zone in {"upper", "mid", "lower"} else "upper" if f.zone == "apical" else "mid"
    lobe = f"{zone} lobe" if zone != "mid" else "middle lobe" if side == "right" else "lingula"
    area = f"{side} " + pick((f"{zone} lung zone", f"{zone} lung", lobe), rng)
    diameter = 2 * _IMAGE_CM * nodule_radius(f)
    grade = ("[mild|mild|minor|slight]", "moderate", "[severe|marked|extensive]")[level]
    size = ("small", "[moderate|moderate-sized]", "large")[level]
    if rng.random() < 0.25:  # reports do not always grade
        grade = size = ""
    slots = {
        "a": "" if both else "a ",
        "s": "s" if both else "",
        "is": "are" if both else "is",
        "grade": grade,
        "gradely": ("[mildly|slightly]", "moderately", "[severely|markedly]")[level],
        "size": size,
        "side": f.side,
        "Side": f.side.capitalize(),
        "sides": "both sides" if both else f"the {f.side}",
        "loc": f"bilateral {zone} lung" if both else area,
        "place": f"[both|the bilateral] {zone} lung zones" if both else f"the {area}",
        "base": "[both bases|both lung bases|the bilateral bases]" if both else f"the {f.side} [lung base|base]",
        "wall": "both chest walls" if both else f"the {f.side} [chest wall|lateral chest wall]",
        "apex": "both apices" if both else f"the {f.side} apex",
        "cm": f"{diameter:.0f}" if rng.random() < 0.4 else f"{diameter:.1f}",
        "nodule": "mass" if diameter > 4.2 else "[nodule|pulmonary nodule|lung nodule]",
        "lump": "mass" if diameter > 4.2 else "nodule",
        "several": {2: "two"}.get(f.count, "[several|multiple]"),
        "number": {1: "a", 2: "two", 3: "three", 4: "four"}.get(f.count, "several"),
    }
    slots["Place"] = slots["place"]
    return slots


def _noun(template: str, f: Finding, rng: np.random.Generator) -> tuple[str, str, bool]:
    """Noun phrase without article, its article and whether it is plural."""
    both = f.side == "bilateral"
    plural = both and ("{s}" in template or "{plural:ies}" in template)
    plural |= f.count > 1 and f.kind in {"Lung Lesion", "Fracture"}
    plural |= re.search(r"plaques|opacities|\[bands", template) is not None
    template = template.replace("y{plural:ies}", "ies" if both else "y")
    article = "a " if "{a}" in template and not plural else ""
    text = expand(expand(template.replace("{a}", ""), rng).format(**_slots(f, rng)), rng)
    return text, article, plural


def describe(f: Finding, rng: np.random.Generator, impression: bool = False) -> Sentence:
    """Affirmation or hedge of one finding."""
    rank = _RANK.get(f.kind, 4 if f.kind not in {"Pneumothorax", "Pleural Effusion", "Pleural Other"} else 7.5)
    if not f.certain:
        bare = expand(pick(PHRASES.hedged[f.kind], rng).format(**_slots(f, rng)), rng)
        text = pick(PHRASES.frames["hedge"], rng).format(bare=bare, Bare=bare)
        return Sentence(tidy(text), states_of(f), rank)
    whole, nouns = _of(f, PHRASES.affirmations), _of(f, PHRASES.nouns)
    if whole and (not nouns or rng.random() < (0.25 if impression else 0.5)):
        text = expand(pick(whole, rng).format(**_slots(f, rng)), rng)
    else:
        frames = PHRASES.frames["impression" if impression else "affirmation"]
        bare, article, plural = _noun(nouns[int(rng.integers(len(nouns)))], f, rng)
        slots = {"np": article + bare, "Np": bare, "bare": bare, "is": "are" if plural else "is"}
        text = pick(frames, rng).format(**slots)
    if f.trend and not impression and rng.random() < 0.75:
        text = f"{text[:-1]}, {pick(PHRASES.trends[f.trend], rng)}."
    return Sentence(tidy(text), states_of(f), rank)


def _negations(mentioned: set[str], room: int, rng: np.random.Generator) -> list[Sentence]:
    """Up to `room` denials of what is neither drawn nor stated otherwise."""
    chosen: list[Sentence] = []
    denied: set[str] = set()
    order = rng.permutation(len(PHRASES.denials))
    # in the order of a draw weighted by how often each is used
    keys = [rng.random() ** (1 / PHRASES.denials[i].weight) for i in order]
    for index in order[np.argsort(keys)[::-1]]:
        labels, rank, _, texts = PHRASES.denials[index]
        blocked = any(label in mentioned or BLOCKS.get(label, set()) & mentioned for label in labels)
        if len(chosen) >= room or blocked or set(labels) & denied:
            continue
        text = pick(texts, rng)
        text = text[1:] if text.startswith("*") else pick(PHRASES.frames["denial"], rng).format(nn=text)
        chosen.append(Sentence(tidy(text), dict.fromkeys(labels, 0), rank))
        denied |= set(labels)
    return chosen


def _remarks(study: Study, rng: np.random.Generator) -> list[Sentence]:
    """Statements on technique and anatomy that can be seen on the image but carry no label."""
    body, known = study.body, PHRASES.remarks
    technique = PHRASES.technique["both" if "Lateral" in study.views[1:] else study.views[0]]
    possible = (  # whether it is so, how often that is said, in which words, and its place in the report
        (True, 0.25, technique, -1),
        (study.breath < -0.5, 0.6, known["low volumes"], 1),
        (study.breath > 0.6, 0.4, known["full volumes"], 1),
        (body.aorta > 1.2, 0.4, known["tortuous aorta"], 3),
        (abs(body.scoliosis) > 0.02, 0.5, known["scoliosis"], 9),
        (body.habitus > 0.55, 0.3, known["obesity"], -1),
        (body.age > 65, 0.15, known["degeneration"], 9),
    )
    bow = "left" if body.scoliosis > 0 else "right"
    return [
        Sentence(tidy(pick(texts, rng).format(bow=bow)), {}, rank)
        for so, share, texts, rank in possible
        if so and rng.random() < share
    ]


def conclude(study: Study, rng: np.random.Generator) -> list[Sentence]:
    disease = [f for f in study.findings if f.kind != "Support Devices"]
    if not disease:
        templates = PHRASES.impressions["normal with devices" if study.findings else "normal"]
        return [Sentence(tidy(pick(templates, rng)), {"No Finding": 1})]
    disease.sort(key=lambda f: -f.severity)
    sentences = [describe(f, rng, impression=True) for f in disease[:3]]
    devices = study.of("Support Devices")
    if devices and rng.random() < 0.5:
        text = pick(PHRASES.impressions["devices"], rng)
        sentences.append(Sentence(tidy(text), {"Support Devices": 1}))
    airspace = [f for f in disease if f.kind in {"Lung Opacity", "Consolidation"} and f.certain]
    if airspace and len(sentences) < 4 and rng.random() < 0.25:
        sentences.append(Sentence(tidy(pick(PHRASES.impressions["pneumonia opinion"], rng)), {"Pneumonia": -1}))
    return sentences
