"""InfoNCE losses of images and texts: CLIP, ConVIRT and CXR-CLIP."""

from __future__ import annotations

import torch
from torch import Tensor

from cxrcl.objectives.losses.contrast import add_logs, as_scalar, gather_sides, info_nce


def clip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    text_identities: Tensor | None = None,
    *,
    logs: dict[str, Tensor] | None = None,
) -> Tensor:
    """CLIP's loss: symmetric InfoNCE of images and texts (Radford et al. 2021, figure 3).

    ½ [CE(s v uᵀ) + CE(s u vᵀ)] of images v and texts u, where row k of one belongs to row k of the other.

    Args:
        image, text: float [b, D] each, unit vectors of this process.
        scale: s, multiplies the cosines (1 / temperature); scalar, with gradient where it is learned.
        text_identities: int64 [b], equal for equal texts (`text_identity`); an equal text of another sample is not
            a negative then. None: every other text is.
        logs: filled with `loss`, `image_to_text`, `text_to_image`, `scale` and, with text identities, `equal_texts`.

    Returns:
        float scalar, the mean over the local rows.

    Raises:
        ValueError: shapes that differ, or a single sample over all processes.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> image, text = (normalize(torch.randn(4, 8), dim=-1).requires_grad_() for _ in range(2))
        >>> log_scale = torch.tensor(2.66, requires_grad=True)
        >>> clip_loss(image, text, log_scale.exp()).backward()
        >>> image.grad.shape, log_scale.grad.shape
        (torch.Size([4, 8]), torch.Size([]))
    """
    image_side, text_side = gather_sides([image, text], [text_identities, text_identities])
    scale = as_scalar(scale, image)
    to_text, to_image = info_nce(image_side, text_side, scale)
    loss = (to_text + to_image) / 2
    add_logs(logs, loss=loss, image_to_text=to_text, text_to_image=to_image, scale=scale, texts=text_side)
    return loss


def convirt_loss(
    image: Tensor,
    text: Tensor,
    temperature: float = 0.1,
    image_to_text_weight: float = 0.75,
    text_identities: Tensor | None = None,
    *,
    logs: dict[str, Tensor] | None = None,
) -> Tensor:
    """ConVIRT's loss: InfoNCE at a fixed temperature, its directions weighted (Zhang et al. 2020, equations 2 to 4).

    λ CE(v uᵀ / τ) + (1 - λ) CE(u vᵀ / τ) of images v and texts u, where row k of one belongs to row k of the other.

    Args:
        image, text: float [b, D] each, unit vectors of this process.
        temperature: τ, divides the cosines.
        image_to_text_weight: λ, weight of the direction image -> text.
        text_identities: int64 [b], see `clip_loss`. None, as in the paper: every other text is a negative.
        logs: filled with `loss`, `image_to_text`, `text_to_image` and, with text identities, `equal_texts`.

    Returns:
        float scalar, the mean over the local rows.

    Raises:
        ValueError: shapes that differ, or a single sample over all processes.

    Example:
        >>> import torch
        >>> same = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> convirt_loss(same, same, temperature=1.0)  # log(1 + exp(-1)) in both directions
        tensor(0.3133)
    """
    image_side, text_side = gather_sides([image, text], [text_identities, text_identities])
    to_text, to_image = info_nce(image_side, text_side, as_scalar(1 / temperature, image))
    loss = image_to_text_weight * to_text + (1 - image_to_text_weight) * to_image
    add_logs(logs, loss=loss, image_to_text=to_text, text_to_image=to_image, texts=text_side)
    return loss


def cxr_clip_loss(
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    text_identities: Tensor | None = None,
    *,
    image_weight: float = 1.0,
    text_weight: float = 0.5,
    label_smoothing: float = 0.0,
    logs: dict[str, Tensor] | None = None,
) -> Tensor:
    """CXR-CLIP's loss of two images and two texts of each study (You et al. 2023, equations 1 to 5).

    The mean of CLIP's loss over the four image-text pairs, + `image_weight` x CLIP's loss of the two images (ICL)
    + `text_weight` x CLIP's loss of the two texts (TCL), all at the same scale.

    Args:
        images, texts: float [b, 2, D] each, unit vectors of this process.
        scale: multiplies the cosines (1 / temperature); scalar, with gradient where it is learned.
        text_identities: int64 [b, 2], see `clip_loss`. A text that equals one of the sample's own two is not its
            negative, and texts of studies that share one are no negatives of each other; images of different studies
            always are.
        image_weight, text_weight: of the contrast between the two images, and between the two texts; one of weight 0
            is not computed.
        label_smoothing: of the image-text part.
        logs: filled with `image_to_text`, `text_to_image`, `image_to_image`, `text_to_text`, `loss`, `scale` and, with
            text identities, `equal_texts`.

    Returns:
        float scalar, the mean over the local rows.

    Raises:
        ValueError: shapes that differ, or a single sample over all processes.

    Example:
        >>> import torch
        >>> from torch.nn.functional import normalize
        >>> images, texts = (normalize(torch.randn(4, 2, 8), dim=-1) for _ in range(2))
        >>> cxr_clip_loss(images, texts, scale=14.3).shape
        torch.Size([])
    """
    if images.shape != texts.shape or images.ndim != 3 or images.shape[1] != 2:
        raise ValueError(f"images {list(images.shape)} and texts {list(texts.shape)}: expected [B, 2, D] each")
    if text_identities is not None and text_identities.shape != images.shape[:2]:
        raise ValueError(f"text_identities {list(text_identities.shape)}: expected [{len(images)}, 2]")
    # An image stands for both texts of its study, a text for itself.
    one_by_one = (None, None) if text_identities is None else text_identities.split(1, dim=1)
    rows = [*images.unbind(1), *texts.unbind(1)]
    *image_sides, first_text, second_text = gather_sides(rows, [text_identities, text_identities, *one_by_one])
    scale = as_scalar(scale, images)
    pairs = [
        info_nce(image, text, scale, label_smoothing) for text in (first_text, second_text) for image in image_sides
    ]
    to_text, to_image = (torch.stack(direction).mean() for direction in zip(*pairs, strict=True))
    loss = (to_text + to_image) / 2
    add_logs(logs, image_to_text=to_text, text_to_image=to_image)
    if image_weight:
        # Images of different studies are negatives whatever their texts say: the identities are taken off.
        first, second = (image._replace(texts=None, gathered_texts=None) for image in image_sides)
        image_to_image = torch.stack(info_nce(first, second, scale)).mean()
        loss = loss + image_weight * image_to_image
        add_logs(logs, image_to_image=image_to_image)
    if text_weight:
        # Studies that share any text are left out, and not only equal texts: here a text stands for its study.
        both, gathered_both = image_sides[0].texts, image_sides[0].gathered_texts
        first, second = (text._replace(texts=both, gathered_texts=gathered_both) for text in (first_text, second_text))
        text_to_text = torch.stack(info_nce(first, second, scale)).mean()
        loss = loss + text_weight * text_to_text
        add_logs(logs, text_to_text=text_to_text)
    add_logs(logs, loss=loss, scale=scale, texts=first_text)
    return loss
