"""GLoRIA: contrast of images and texts, and of image regions and words (Huang et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cxrcl.models.base import ImageEncoder, TextEncoder
from cxrcl.models.heads import Head
from cxrcl.objectives.local_similarity import (
    Aggregation,
    attention_maps,
    best_word_cosines,
    merge_words,
    word_counts,
)
from cxrcl.objectives.losses import gloria_loss
from cxrcl.objectives.towers import Targets, TwoTowers, encode_texts, encode_views, unit_vectors
from cxrcl.types import Batch, Features, NotNegative, Positive, StepOutput, Text


class Gloria(TwoTowers):
    """Contrasts of images and texts, and of regions and words: `cxrcl.objectives.losses.gloria_loss`.

    The words of a text are its first token ([CLS]) and each whole word, the sum of its tokens; what closes the text
    ([SEP]) and padding are no words.

    Args:
        image_encoder, text_encoder, image_head, text_head, targets: see `cxrcl.objectives.towers.TwoTowers`. The image
            encoder must have local features; the first two heads project pooled ones.
        region_head, word_head: make projections of local features and of words; called with the encoder's local width.
            The paper projects regions without bias, and words not at all.
        attention_scale: the paper's first temperature, multiplies before the softmax over regions.
        word_scale: its second, multiplies the cosines of words and their contexts.
        scale: its third, multiplies both similarities. The paper divides by these letters, its code multiplies.
        aggregation: `sum` over the words of a text, or `mean`.
        local_weight, global_weight: of the two parts; with a weight of 0 a part has no influence.
        low_memory: make regional attention again in the backward pass instead of keeping it.

    Raises:
        ValueError: an image encoder without local features, a tokenizer without an opening token, heads of different
            widths, or two weights of 0.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_head: Callable[..., Head],
        text_head: Callable[..., Head],
        region_head: Callable[..., Head],
        word_head: Callable[..., Head],
        attention_scale: Positive = 4.0,
        word_scale: Positive = 5.0,
        scale: Positive = 10.0,
        aggregation: Aggregation = "sum",
        local_weight: NotNegative = 1.0,
        global_weight: NotNegative = 1.0,
        low_memory: bool = False,
        targets: Targets = "same_text",
    ) -> None:
        if not image_encoder.local_dim:
            raise ValueError(
                f"image_encoder: {type(image_encoder).__name__} gives no local features (local_dim=0), which GLoRIA "
                "matches with words: choose one that does"
            )
        super().__init__(image_encoder, text_encoder, image_head, text_head, targets)
        self.region_head = region_head(image_encoder.local_dim)
        self.word_head = word_head(text_encoder.local_dim)
        if self.region_head.out_dim != self.word_head.out_dim:
            raise ValueError(
                f"region_head.out_dim={self.region_head.out_dim} and word_head.out_dim={self.word_head.out_dim} differ"
            )
        if text_encoder.tokenizer(["chest"]).words[0][0] != -1:
            raise ValueError(
                "text_encoder: its texts do not begin with a special token such as [CLS], which GLoRIA takes for their "
                "first word: choose a BERT-like one"
            )
        if not local_weight + global_weight:
            raise ValueError("local_weight=0, global_weight=0: expected one above 0")
        self.attention_scale, self.word_scale, self.scale = attention_scale, word_scale, scale
        self.aggregation: Aggregation = aggregation
        self.local_weight, self.global_weight = local_weight, global_weight
        self.low_memory = low_memory

    def similarity_scale(self) -> float:
        """The factor that turns cosines into logits."""
        return self.scale

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """`text` as `TwoTowers` has it, and `counts` int64 [B] on the CPU: words of each text, the first token too."""
        assert batch.text is not None
        # The loss cuts texts to their length and so needs these on the host. Copied here, before the encoders run, they
        # make the host wait for the rest of the last update only.
        return {**super().targets(batch), "counts": word_counts(batch.text.words[:, 0]).cpu()}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`image` and `text` float32 [B, 1, D], unit vectors; `regions` float [B, N, d] and `words` float [B, L, d]."""
        assert batch.text is not None
        image, text = encode_views(self.image_encoder, batch, 1), encode_texts(self.text_encoder, batch, 1)
        merged, _ = merge_words(text.local, batch.text.words[:, 0])
        return {
            "image": unit_vectors(self.image_head(image.pooled))[:, None],
            "text": unit_vectors(self.text_head(text.pooled))[:, None],
            "regions": self.region_head(image.local),
            "words": self.word_head(merged),
        }

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `image` and `text` float [b, 1, D], `regions` [b, N, d] and `words` [b, L, d]; of `counts` int64 [b] on
        the CPU, and of `text` int64 [b, 1] where equal texts are left out.
        """
        logs: dict[str, Tensor] = {}
        loss = gloria_loss(
            embeddings["image"][:, 0],
            embeddings["text"][:, 0],
            embeddings["regions"],
            embeddings["words"],
            targets["counts"],
            targets.get("text"),
            attention_scale=self.attention_scale,
            word_scale=self.word_scale,
            scale=self.scale,
            aggregation=self.aggregation,
            local_weight=self.local_weight,
            global_weight=self.global_weight,
            low_memory=self.low_memory,
            logs=logs,
        )
        return StepOutput(loss, logs, {})

    @torch.no_grad()
    def embed_words(self, ids: Tensor, mask: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """The words of texts, without the first token, which is a word in training only.

        Args:
            ids, mask, words: int64 [P, L] each, the tokens of P texts.

        Returns:
            float32 [P, L - 1, d], and how many of them each text has, int64 [P] on the CPU.

        Raises:
            ValueError: a text has no word.
        """
        merged, counts = merge_words(self.text_encoder(ids, mask).local, words)
        if int(counts.min()) < 2:
            raise ValueError("a prompt without words has no local similarity: leave it out")
        return self.word_head(merged).float()[:, 1:], (counts - 1).cpu()

    @torch.no_grad()
    def match_words(self, features: Features, words: Tensor, counts: Tensor) -> Tensor:
        """Local similarity: `word_scale` times the cosine of the word that is matched best.

        Args:
            features: of B images, as `encode_images` returns them.
            words, counts: float32 [P, W, d] and int64 [P], as `embed_words` returns them.

        Returns:
            float32 [B, P].
        """
        regions = self.region_head(features.local).float()
        with torch.autocast(regions.device.type, enabled=False):
            return self.word_scale * best_word_cosines(regions, words, counts, self.attention_scale)

    @torch.no_grad()
    def attention(self, images: Tensor, text: Text) -> Tensor:
        """Where each word of an image's own text is found, for heat-maps.

        Args:
            images: float32 [B, 3, S, S].
            text: int64 [B, T, L], one or more texts of each image, of which the first is taken.

        Returns:
            float32 [B, L, N]: slot 0 is the first token, slot w + 1 word w, each with a sum of one over regions; slots
            behind the last word are zero.
        """
        words = text.words[:, 0]
        merged, counts = merge_words(self.text_encoder(text.ids[:, 0], text.mask[:, 0]).local, words)
        regions, projected = self.region_head(self.image_encoder(images).local), self.word_head(merged)
        with torch.autocast(images.device.type, enabled=False):
            return attention_maps(regions.float(), projected.float(), counts, self.attention_scale)

    def chance(self, global_batch: int) -> float:
        """Equal similarities: log B for each direction of each part, weighted."""
        return 2 * (self.local_weight + self.global_weight) * math.log(global_batch)
