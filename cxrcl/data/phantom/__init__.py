"""The phantom set: procedural chest radiographs with reports and labels, made in seconds from a seed.

Every image is drawn as a sum of attenuations (soft tissue, lungs, heart, bones, vessels, findings) and exposed with a
random density, contrast, noise and position. Patients have one to three studies, studies one or two images and one
report; the reports are written from the findings drawn, so labels, texts and boxes agree by construction (see
`report` for what each label value means). A set is a folder with

* `images/pNNNNN/sNN_view.png`: 8-bit grey images,
* `manifest.csv`: one row per image with patient, study, view, split, both report sections and the 14 CheXpert labels
  (1, 0, -1 uncertain, blank not mentioned),
* `findings.csv`: what is drawn on each image and where: side, zone, severity 0..1, box (x0, y0, x1, y1) in 0..1,
* `settings.json`: the settings it was made with.

How conspicuous the findings are: affirmed ones have severities of 0.4 to 1 (0.3 when they improve on a later image) and
can be seen at 96 px; about one in eight is faint (0.08 to 0.25) and hedged in the report (-1). Position, size, exposure
and habitus vary enough that pixels alone do not give the answer away.

Test AUROC (1 against 0, per image) on the default 3000 studies, 4251 images:

                              positive studies   ridge on 32x32 pixels   small supervised CNN
    Enlarged Cardiomediastinum       11 %                0.94                    1.00
    Cardiomegaly                     10 %                0.88                    0.99
    Lung Opacity                     12 %                0.73                    0.99
    Lung Lesion                      12 %                0.66                    0.98
    Edema                            12 %                0.97                    1.00
    Consolidation                    11 %                0.84                    1.00
    Pneumonia                         8 %                0.69                    0.96
    Atelectasis                      10 %                0.78                    0.99
    Pneumothorax                     13 %                0.65                    1.00
    Pleural Effusion                 14 %                0.88                    1.00
    Pleural Other                    12 %                0.76                    0.98
    Fracture                         13 %                0.63                    0.96
    Support Devices                  29 %                0.67                    0.99
    mean                                                 0.78                    0.99

The CNN has eight convolutions of 32 to 256 channels, 1.2 million weights, and saw 78,000 augmented images. 31 % of the
studies are normal; all 3000 reports differ. One core draws about 270 images of 96 px a second.
"""

from __future__ import annotations

from .contact_sheet import contact_sheet
from .generate import FINDINGS_COLUMNS, MANIFEST_COLUMNS, PhantomSettings, generate
from .study import LABELS, Finding

__all__ = ["FINDINGS_COLUMNS", "LABELS", "MANIFEST_COLUMNS", "Finding", "PhantomSettings", "contact_sheet", "generate"]
