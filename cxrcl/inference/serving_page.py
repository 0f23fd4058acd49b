"""The page of `inference.py --serve`: what it looks like, and what its button does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio
from gradio.exceptions import InvalidPathError
from PIL import Image

from cxrcl.data.images.pixels import ImageError
from cxrcl.errors import RESEARCH_ONLY, ConfigError, UserError
from cxrcl.inference.predict import LoadedModel, Predictor
from cxrcl.inference.questions import Questions
from cxrcl.inference.results import PICTURES
from cxrcl.types import Classifies

MOST_PHRASES = 8  # each is a panel of the picture
IMAGE = "image"  # stands in pictures for the name of the file, which may name a person
NOT_READ = "Not read yet."
GONE = "The image is no longer there: choose it again."


class Answer(NamedTuple):
    """What the page shows; of an image that cannot be read, the reason alone."""

    html: str
    picture: Image.Image | None = None
    content: dict[str, Any] | None = None  # as in results.json


class PageSession:
    """Answers requests of the page one image at a time, however many browsers send them.

    Args:
        questions: labels that may be chosen (None: those of the checkpoint), phrases to begin with, prompts and
            sentences.
        folder: for an image and its picture while it is read.

    Raises:
        ConfigError: a model that predicts nothing, or a question that it cannot answer.
    """

    def __init__(self, loaded: LoadedModel, questions: Questions, folder: Path) -> None:
        self._loaded, self.questions, self._folder = loaded, questions, folder
        if len(questions.phrases) > MOST_PHRASES:
            raise ConfigError(
                f"--phrase: {len(questions.phrases)} of them, expected {MOST_PHRASES} at most with --serve"
            )
        self._busy = threading.Lock()
        self._last: tuple[Questions, Predictor] | None = None
        self.labels = self._predictor(questions).labels
        self.takes_texts = not isinstance(loaded.model, Classifies)

    def answer(self, upload: str | None, labels: Sequence[str], phrases: str) -> Answer:
        """The answer for one image.

        Args:
            upload: an uploaded file; it is left as it is.
            labels: to be predicted, each with a map; none: all of them, with maps of the most probable.
            phrases: one a line.
        """
        lines = [line.strip() for line in phrases.splitlines() if line.strip()]
        if upload is None:
            return Answer(message_html("Choose an image first."))
        if len(lines) > MOST_PHRASES:
            return Answer(message_html(f"{len(lines)} phrases: expected {MOST_PHRASES} at most."))
        questions = replace(self.questions, labels=list(labels) or self.questions.labels, phrases=lines)
        with self._busy:
            try:
                return self._answer(upload, questions)
            finally:
                for path in (self._folder / IMAGE, *self._folder.glob(f"{PICTURES}/*")):
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """Wait for the image that is being read, and read no more."""
        self._busy.acquire()

    def _predictor(self, questions: Questions) -> Predictor:
        """The last one again for the same questions: a large text encoder takes seconds for the prompts."""
        if self._last is None or self._last[0] != questions:
            self._last = questions, Predictor(self._loaded, questions, self._folder / PICTURES)
        return self._last[1]

    def _answer(self, upload: str, questions: Questions) -> Answer:
        try:
            shutil.copyfile(upload, self._folder / IMAGE)
        except OSError:
            return Answer(message_html(GONE))
        try:
            predictor = self._predictor(questions)
            (entry,) = predictor.predict([self._folder / IMAGE])
        except (UserError, ImageError) as error:
            return Answer(message_html(str(error)))
        if "error" in entry:
            return Answer(message_html(f"Not read: {entry['error']}"))
        with Image.open(self._folder / entry["heatmap"].pop("picture")) as picture:
            picture.load()
        del entry["image"]
        return Answer(as_html(entry, predictor.rule), picture, {"rule": predictor.rule, "note": RESEARCH_ONLY, **entry})


def message_html(line: str) -> str:
    """One line of text as HTML."""
    return f'<div class="answer" role="status"><p>{escape(line)}</p><p class="note">{RESEARCH_ONLY}</p></div>'


def as_html(entry: dict[str, Any], rule: str) -> str:
    """Tables of an entry of `Predictor.predict`: probabilities, the highest first; cosines of phrases and sentences."""
    ranked = sorted(entry["probabilities"].items(), key=lambda item: -item[1])
    bars = (
        f'<tr><td>{escape(label)}</td><td class="bar"><div style="width: {100 * value:.1f}%"></div></td>'
        f'<td class="number">{value:.3f}</td></tr>'
        for label, value in ranked
    )
    parts = [_table("Probability", 3, bars)]
    if "phrases" in entry:
        parts.append(_cosines("Cosine of each phrase", entry["phrases"].items()))
    if "sentences" in entry:
        parts.append(
            _cosines("Best-matching sentences (cosine)", ((s["text"], s["cosine"]) for s in entry["sentences"]))
        )
    foot = f'<p>{escape(rule)}</p><p class="note">{RESEARCH_ONLY}</p>'
    return f'<div class="answer" role="status">{"".join(parts)}{foot}</div>'


def _cosines(title: str, rows: Iterable[tuple[str, float]]) -> str:
    cells = (f'<tr><td>{escape(text)}</td><td class="number">{cosine:.3f}</td></tr>' for text, cosine in rows)
    return _table(title, 2, cells)


def _table(title: str, columns: int, rows: Iterable[str]) -> str:
    return f'<table><thead><tr><th colspan="{columns}">{title}</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'


class Page(gradio.Blocks):
    """Blocks with a message for an image that is gone: gradio prints where it was, and with that its name."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except InvalidPathError:  # a page that stayed open while the server was started anew
            raise gradio.Error(GONE, print_exception=False) from None


def build(session: PageSession, checkpoint: str) -> tuple[gradio.Blocks, dict[str, Any]]:
    """The page, and how it looks: arguments of its `launch`."""
    with Page(title="cxrcl", analytics_enabled=False) as page:
        gradio.HTML(f'<h1>Reading images</h1><p>{escape(checkpoint)}</p><p class="note">{RESEARCH_ONLY}</p>')
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300):
                upload = gradio.File(label="Image: PNG, JPEG, TIFF, DICOM; 8 or 16 bit", height=160)
                labels = gradio.Dropdown(
                    session.labels,
                    value=[],
                    multiselect=True,
                    label="Findings",
                    info="None chosen: all of them, with maps of the five most probable or of the phrases.",
                )
                phrases = gradio.Textbox(
                    "\n".join(session.questions.phrases),
                    lines=3,
                    label="Phrases",
                    info=f"One a line, at most {MOST_PHRASES}: each gets its cosine with the image, and a map.",
                    placeholder="left pleural effusion",
                    visible=session.takes_texts,
                )
                button = gradio.Button("Read the image", variant="primary")
            with gradio.Column(scale=3, min_width=300):
                tables = gradio.HTML(message_html(NOT_READ))
        with gradio.Column(visible=False, elem_classes="maps") as more:
            picture = gradio.Image(
                show_label=False, interactive=False, format="png", buttons=["download", "fullscreen"]
            )
            with gradio.Accordion("As JSON", open=False):
                content = gradio.JSON(show_label=False)

        last = gradio.State()

        def read(upload: str | None, labels: list[str], phrases: str) -> tuple[str | None, Answer]:
            return upload, session.answer(upload, labels, phrases)

        def show(upload: str | None, last: tuple[str | None, Answer] | None) -> tuple[Any, ...]:
            answer = last[1] if last and last[0] == upload else Answer(message_html(NOT_READ))
            return answer.html, gradio.Column(visible=answer.picture is not None), answer.picture, answer.content

        # In two steps: while an image is read another may be chosen, and no result may stand beside that.
        reading = button.click(
            read,
            [upload, labels, phrases],
            last,
            show_progress_on=tables,
            concurrency_limit=1,
            api_visibility="private",
        )
        for event in (reading.success, upload.change):
            event(
                show,
                [upload, last],
                [tables, more, picture, content],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
    return page, {"theme": _theme(), "css_paths": Path(__file__).with_suffix(".css")}


def _theme() -> gradio.themes.Base:
    """With the system's fonts: gradio's own are fetched from a font service where its package lacks them."""
    theme = gradio.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    contrast = {  # theirs are below 4.5 : 1
        "button_primary_background_fill": "*primary_600",
        "button_primary_background_fill_hover": "*primary_700",
        "block_info_text_color": "*neutral_500",
        "block_info_text_color_dark": "*neutral_300",
        "input_placeholder_color": "*neutral_500",
        "input_placeholder_color_dark": "*neutral_400",
    }
    return theme.set(**contrast)
