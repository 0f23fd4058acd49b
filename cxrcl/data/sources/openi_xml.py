"""One report of Open-i: an XML file -> its id, images, tags and sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat


class ReportError(ValueError):
    """A file is not a report."""


@dataclass
class Report:
    """The content of a report file.

    Attributes:
        uid: such as CXR1; '' where the file has none.
        images: names without suffix, such as CXR1_1_IM-0001-3001.
        tags: MeSH tags that an indexer chose ("major"), such as Opacity/lung/base/left.
        sections: FINDINGS, IMPRESSION, ... -> text with single spaces.
    """

    uid: str = ""
    images: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)


def parse_report(content: bytes) -> Report:
    """Read a report.

    Raises:
        ReportError: it is not well-formed, or declares entities: a few lines of these can expand to gigabytes, and
            no report has any.
    """
    report = Report()
    label: str | None = None  # of the section that is being read; '' for a tag
    words: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal label
        if name == "uId":
            report.uid = attributes.get("id", "").strip()
        elif name == "parentImage":
            report.images.append(attributes.get("id", "").strip())
        elif name in ("major", "AbstractText"):
            label = "" if name == "major" else attributes.get("Label", "").strip().upper()
            words.clear()

    def end(name: str) -> None:
        nonlocal label
        if name not in ("major", "AbstractText") or label is None:
            return
        text = " ".join("".join(words).split())
        if name == "major":
            report.tags.append(text)
        else:
            report.sections[label] = f"{report.sections.get(label, '')} {text}".strip()
        label = None

    def text(data: str) -> None:
        if label is not None:
            words.append(data)

    def entity(*_: object) -> None:
        raise ReportError("it declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ReportError(f"not well-formed XML: {error}") from None
    report.images = [name for name in report.images if name]
    report.tags = [tag for tag in report.tags if tag]
    return report
