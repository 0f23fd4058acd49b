"""Losses as functions of embeddings, for use in any training loop; the objectives of this package call them.

Every function takes this process's rows and returns their mean loss, a scalar. Where torch.distributed is initialised,
the rows of the other processes are gathered with gradient: averaging the parameters' gradients over processes, as
DistributedDataParallel does, then gives exactly the gradient of one process that has the whole batch. Every process
must hold the same number of rows. Without torch.distributed nothing is gathered.

Embeddings are float32 (or float64) unit vectors. Call the losses outside of autocast: logits of 16 bits are too coarse
for a softmax over a batch.

`logs`, where a function has it, is a dictionary to be filled with the parts of the loss, detached scalars.
"""

from cxrcl.objectives.losses.classification import (
    has_label,
    has_one_class,
    multi_class_loss,
    multi_label_loss,
)
from cxrcl.objectives.losses.contrast import Side, cross_entropy, gather_sides, info_nce
from cxrcl.objectives.losses.gloria import gloria_loss
from cxrcl.objectives.losses.image_text import clip_loss, convirt_loss, cxr_clip_loss
from cxrcl.objectives.losses.moco import moco_loss
from cxrcl.objectives.losses.nt_xent import nt_xent_loss
from cxrcl.objectives.losses.sigmoid import siglip_loss
from cxrcl.objectives.same_text import text_identity

__all__ = [
    "Side",
    "clip_loss",
    "convirt_loss",
    "cross_entropy",
    "cxr_clip_loss",
    "gather_sides",
    "gloria_loss",
    "has_label",
    "has_one_class",
    "info_nce",
    "moco_loss",
    "multi_class_loss",
    "multi_label_loss",
    "nt_xent_loss",
    "siglip_loss",
    "text_identity",
]
