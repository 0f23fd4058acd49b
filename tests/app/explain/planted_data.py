"""The data and the two checkpoints of the study of planted causes (`test_planted.py`).

Phantom images are square and their labels complete: no choice of how an image becomes square, or of what a blank cell
means, would move a figure there. So each image loses a strip on two of its sides, some labels become uncertain (-1) and
others blank, as they are in public sets.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrcl.data.phantom import PhantomSettings, generate

STUDIES, SIZE_PX, MODEL_PX = 2400, 128, 64
NOT_LABELS = ("image", "patient", "study", "view", "split", "sex", "age", "findings", "impression")
SHARED = (
    *(
        "device=cpu",
        "data.num_workers=0",
        "data.reports.sentences=2",
        "trainer.precision=fp32",
        "trainer.batch_size=64",
    ),
    *(
        "trainer.max_epochs=null",
        "trainer.warmup_epochs=null",
        "trainer.warmup_steps=50",
        "evals=[]",
        "data.views=null",
    ),
    *("trainer.evaluate_every_epochs=null", "trainer.ema_decay=0.99", f"image_encoder.size={MODEL_PX}", "seed=0"),
    *("text_encoder.width=96", "optimizer.lr=1.5e-3"),
)
# Two encoders, two objectives, two ways to pool: what is true of one need not be of the other.
RECIPES = {
    "resnet": ("image_encoder=small_resnet", "objective=clip", "trainer.max_steps=350"),
    "vit": (
        *("image_encoder=vit_convstem_small", "image_encoder.pooling=mean", "objective=siglip"),
        *("text_encoder.pooling=cls", "trainer.max_steps=350"),
    ),
}


def write_data(folder: Path) -> Path:
    """The set of the study in `folder`, made once."""
    if (folder / "manifest.csv").is_file():
        return folder
    phantom = generate(
        folder / "phantom", PhantomSettings(num_studies=STUDIES, size_px=SIZE_PX, seed=11), num_workers=2
    )
    table = pd.read_csv(phantom / "manifest.csv", dtype=str, keep_default_na=False)
    random = np.random.default_rng(7)
    for name in table["image"]:
        pixels = np.asarray(Image.open(phantom / name).convert("L"))
        strip = 2 * int(random.integers(4, 17))  # of 128 px: aspects from 0.75 to 0.94
        cut = (
            pixels[:, strip // 2 : SIZE_PX - strip // 2] if random.random() < 0.6 else pixels[strip // 2 : -strip // 2]
        )
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(cut).save(target)
    labels = [name for name in table.columns if name not in NOT_LABELS]
    for name in labels:
        by_study = table.groupby(["patient", "study"], sort=False)[name].transform("first")
        number = pd.factorize(table["patient"] + "/" + table["study"])[0]
        # Radiologists doubt what they see more often than what they do not see.
        draw = np.random.default_rng([9, labels.index(name)]).random(number.max() + 1)[number]
        uncertain = draw < np.where(by_study == "1", 0.12, 0.06)
        blank = (draw > 0.75) & (by_study == "0")
        table[name] = np.where(uncertain, "-1", np.where(blank, "", by_study))
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


def train_checkpoints(folder: Path, data: Path) -> dict[str, Path]:
    """Name -> checkpoint of each recipe, trained once; a minute or two each on two cores."""
    from cxrcl.app.train import train
    from cxrcl.commands.hydra import compose

    files = {}
    for name, recipe in RECIPES.items():
        files[name] = folder / name / "checkpoints" / "last.pt"
        if not files[name].is_file():
            train(compose("train", [*recipe, *SHARED, f"data.root='{data}'", f"run_dir='{folder / name}'"]))
    return files


if __name__ == "__main__":
    import sys

    place = Path(sys.argv[1])
    print(train_checkpoints(place / "runs", write_data(place / "data")))
