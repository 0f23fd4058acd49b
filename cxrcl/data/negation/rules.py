"""Which sentences of free reports state a finding or its absence.

A sentence is read only where every word of it fits one of these patterns (everything else is left alone):

    absent    [There is] no | negative for | without [evidence of]  ITEM {, | or | and ITEM}  [is] [seen | present ...]
    present   [There is] [a] {severity, side, place} NOUN [in | at the PLACE] [is] [seen | present ...]
    heart     The heart is [not | mildly ...] enlarged | normal in size;  Heart size is normal | enlarged

An ITEM is a NOUN of a finding after words that do not change what is denied ("focal consolidation"). After "large",
"acute" or the like the denial is read as a weak one: a small or an old one may be there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Finding -> its nouns, as a pattern of whole words.
NOUNS = {
    "Pleural Effusion": r"(?:pleural )?effusions?|pleural fluid",
    "Pneumothorax": r"pneumothora(?:x|ces)",
    "Consolidation": r"consolidations?",
    "Edema": r"edema",
    "Pneumonia": r"pneumonia",
    "Atelectasis": r"atelectasis",
    "Lung Lesion": r"nodules?|mass(?:es)?",
    "Fracture": r"fractures?",
    "Lung Opacity": r"infiltrates?|air ?space (?:disease|opacit(?:y|ies))",
    "Pleural Other": r"pleural thickening",
    "Enlarged Cardiomediastinum": r"mediastinal widening|widening of the mediastinum",
    "Cardiomegaly": r"cardiomegaly",
    # read in lists, never turned
    "": r"opacit(?:y|ies)|adenopathy|lymphadenopathy|free air|granulomas?|vascular congestion",
}
# Finding -> what else may speak of it: such a sentence that is not read keeps the report from being turned.
MENTIONS = {
    "Pleural Effusion": r"effusion|fluid|costophrenic|pleural|hydro|blunting",
    "Pneumothorax": r"pneumothora|pleural space|pleural line",
    "Consolidation": r"consolidat|air ?space|pneumonia|infiltrat|opaci|lungs?\b.*\bclear|clear\b.*\blungs?|alveolar",
    "Edema": r"edema|congest|vascula|failure|chf|kerley|interstitial|engorge",
    "Pneumonia": r"pneumoni|infect|infiltrat|consolidat|opaci|air ?space|lungs?\b.*\bclear|clear\b.*\blungs?",
    "Atelectasis": r"atelecta|volume loss|collapse|opaci|scar|streak|lungs?\b.*\bclear|clear\b.*\blungs?",
    "Lung Lesion": r"nodul|mass|lesion|granuloma|tumor|neoplas|malignan|metasta|lungs?\b.*\bclear|clear\b.*\blungs?",
    "Fracture": r"fractur|deformit|osseous|bon[ey]|rib|skelet|compress|wedge|vertebra",
    "Lung Opacity": r"opaci|infiltrat|air ?space|consolidat|pneumonia|densit|lungs?\b.*\bclear|clear\b.*\blungs?|"
    r"atelecta|edema|interstitial",
    "Pleural Other": r"pleura|thicken|scar|plaque",
    "Enlarged Cardiomediastinum": r"mediastin|aort",
    "Cardiomegaly": r"heart|cardia|cardiome|ventric|silhouette",
}
# Says that nothing is wrong, or nothing acute: beside it no finding is turned to present.
NORMAL = re.compile(
    r"\b(?:no|not|without|negative)\b.*\b(?:acute|active)\b"
    r"|\b(?:normal|negative|unremarkable) (?:chest|exam|study|film)"
    r"|^(?:normal|negative|unremarkable)$|\bno (?:radiographic |significant |preoperative )?(?:abnormal|finding)"
)
_KEEPS = (  # words before the noun of a denial that leave it a denial of the finding
    r"focal|visible|visualized|pleural|pulmonary|lung|alveolar|air ?space|any|focal areas? of|areas? of|evidence of|"
    r"findings of|signs? of|typical findings of|of|basilar|new"
)
_WEAKENS = (  # words that leave room for the finding: a small one, an old one, one of another kind or place
    r"large|larger|definite|significant|sizable|sizeable|obvious|gross|overt|convincing|confluent|frank|acute|"
    r"suspicious|lobar|interstitial|rib|bony|displaced"
)
_WEAKENS_ALSO = {"Lung Opacity": "focal"}  # streaky ones at both bases are seen beside "no focal infiltrate"
_DETAIL = (
    r"mild|mildly|minimal|moderate|moderately|severe|marked|small|large|tiny|trace|slight|stable|unchanged|chronic|new|"
    r"persistent|left|right|bilateral|left-sided|right-sided|bibasilar|basilar|basal|bibasal|lower|upper|middle|lobe|"
    r"lung|pulmonary|subsegmental|linear|discoid|plate-?like|streaky|patchy|focal|interstitial|diffuse|alveolar|"
    r"air ?space|base|mid|apical|and|healed|old|remote|acute|rib|clavicle|displaced|multiple|posterior|lateral|mild to"
)
_PLACE = (
    r"(?:bilaterally|(?:in|at|of|within|on|along) (?:the |both )?(?:(?:left|right|lower|upper|middle|mid|lung|lateral|"
    r"posterior|anterior|medial|bilateral) )*"
    r"(?:lobes?|lungs?|bases?|side|apex|zones?|hemithorax|lingula|ribs?|clavicle))"
)
_SEEN = r"(?: (?:is|are))?(?: (?:again )?(?:seen|identified|noted|present|visualized|evident|demonstrated|appreciated))"
_BEFORE = r"(?:specifically,? )?(?:there (?:is|are) )?"
_ABSENT = re.compile(rf"{_BEFORE}(?:no|negative for|without) (.+?)(?:{_SEEN})?")
_NOUN = "|".join(f"(?P<f{k}>{noun})" for k, noun in enumerate(NOUNS.values()))
_ITEM = re.compile(rf"(?P<words>(?:(?:{_KEEPS}|{_WEAKENS}) )*?)(?:{_NOUN})")
_PRESENT = re.compile(rf"{_BEFORE}(?:an? )?(?:(?:{_DETAIL}) )*?(?:{_NOUN})(?: {_PLACE})?(?:{_SEEN})?")
_DEGREE = r"(?:mildly|moderately|severely|markedly|slightly|minimally|stably|again|borderline)"
_HEART = r"(?:the )?(?:heart|cardiac silhouette|cardiac shadow|heart size|cardiac size|heart silhouette)"
_HEART_ENLARGED = re.compile(rf"(?:stable )?{_HEART}(?: (?:is|remains|appears))?(?: {_DEGREE})* enlarged(?: in size)?")
_HEART_NORMAL = re.compile(
    rf"{_HEART}(?: (?:is|remains|appears))? (?:normal(?: in)?(?: size)?|not enlarged|within normal limits)"
    r"|normal heart(?: size)?"
)
_SEPARATOR = re.compile(r",? (?:or|and) |, ?|/")


@dataclass(frozen=True)
class Statement:
    """What a sentence that was read says.

    Attributes:
        present: whether it states its findings present, or absent.
        findings: in its order; '' for what is no label.
        texts: the words of each.
        weak: whether it leaves a doubt.
    """

    present: bool
    findings: tuple[str, ...]
    texts: tuple[str, ...]
    weak: bool = False


def read_sentence(sentence: str) -> Statement | None:
    """What a sentence states, where every word of it is known; None for all other sentences.

    >>> read_sentence("There is no focal consolidation or pneumothorax.").findings
    ('Consolidation', 'Pneumothorax')
    """
    text = " ".join(sentence.lower().rstrip(".").split())
    if _HEART_NORMAL.fullmatch(text):
        return Statement(False, ("Cardiomegaly",), (text,))
    if _HEART_ENLARGED.fullmatch(text):
        return Statement(True, ("Cardiomegaly",), (text,), weak="borderline" in text)
    if match := _ABSENT.fullmatch(text):
        items = [_ITEM.fullmatch(part) for part in _SEPARATOR.split(match[1])]
        if not all(items):
            return None
        found = [item for item in items if item]
        findings = tuple(map(_finding, found))
        weak = any(_is_weak(name, item["words"]) for name, item in zip(findings, found))
        return Statement(False, findings, tuple(item[0] for item in found), weak)
    if match := _PRESENT.fullmatch(text):
        return Statement(True, (_finding(match),), (text,))
    return None


def _is_weak(finding: str, words: str) -> bool:
    weakens = "|".join(filter(None, [_WEAKENS, _WEAKENS_ALSO.get(finding)]))
    return re.search(rf"\b(?:{weakens})\b", words) is not None


def _finding(match: re.Match[str]) -> str:
    return next(name for k, name in enumerate(NOUNS) if match[f"f{k}"])
