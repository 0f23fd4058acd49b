"""The wording of what is absent or normal, and remarks that carry no label (notation as in `phrases`)."""

from __future__ import annotations

# what is denied: the labels, the place in the report, how often it is used, and noun phrases for the frames below or,
# marked with *, whole sentences
Negation = tuple[tuple[str, ...], int, float, tuple[str, ...]]
NEGATIONS: tuple[Negation, ...] = (
    (
        ("Support Devices",),
        0,
        0.45,
        (
            "*No [support devices|lines or tubes|tubes or lines|indwelling devices|implanted devices].",
            "*There are no [support devices|lines or tubes|medical devices].",
            "*No [lines or tubes|devices|indwelling lines] are [seen|present|identified].",
            "*[Free of|Without] [lines and tubes|support devices].",
        ),
    ),
    (
        ("Cardiomegaly", "Enlarged Cardiomediastinum"),
        2,
        0.40,
        (
            "*The cardiomediastinal [silhouette|contour] is [normal|within normal limits|unremarkable].",
            "*[Normal|Unremarkable] cardiomediastinal [silhouette|contours].",
            "*[Heart and mediastinum|The heart and mediastinum] are [normal|unremarkable|normal in size].",
            "*The heart is normal in size and the mediastinum is [not widened|of normal width].",
            "cardiomegaly or mediastinal widening",
            "cardiac or mediastinal enlargement",
        ),
    ),
    (
        ("Cardiomegaly",),
        2,
        0.40,
        (
            "*[Heart|Cardiac] size is [normal|within normal limits|unremarkable].",
            "*The heart is [normal in size|not enlarged|of normal size].",
            "*The cardiothoracic ratio is [normal|within normal limits].",
            "*Normal [heart size|cardiac size|cardiac silhouette].",
            "cardiomegaly",
            "[cardiac enlargement|enlargement of the heart]",
        ),
    ),
    (
        ("Enlarged Cardiomediastinum",),
        3,
        0.40,
        (
            "*[Mediastinal contours are|The mediastinal contour is|The mediastinum is] [normal|within normal limits].",
            "*The [superior|upper] mediastinum is [not widened|of normal width|normal].",
            "*Normal mediastinal [contours|silhouette|width].",
            "[mediastinal widening|widening of the mediastinum]",
            "mediastinal enlargement",
        ),
    ),
    (
        ("Lung Opacity", "Consolidation"),
        4,
        0.50,
        (
            "*The lungs are [clear|clear bilaterally|well aerated and clear|clear throughout].",
            "*[Clear lungs|Both lungs are clear|Lungs are clear|The lung fields are clear].",
            "*[Lungs|Both lungs] are clear of [opacity and consolidation|consolidation and opacity].",
            "[focal opacity or consolidation|consolidation or opacity|airspace opacity or consolidation]",
        ),
    ),
    (
        ("Lung Opacity",),
        4,
        0.30,
        (
            "[focal|focal lung|pulmonary|confluent] opacity",
            "[focal opacities|airspace opacity|suspicious opacity]",
            "*The lungs are free of [focal opacity|opacities].",
        ),
    ),
    (
        ("Consolidation",),
        4,
        0.35,
        ("[focal|lobar|confluent] consolidation", "[airspace|dense|pulmonary] consolidation"),
    ),
    (
        ("Pneumonia",),
        5,
        0.45,
        ("pneumonia", "[focal|acute|lobar] pneumonia", "*[Nothing|No sign] to suggest pneumonia."),
    ),
    (("Consolidation", "Pneumonia"), 5, 0.15, ("consolidation or pneumonia", "consolidation to suggest pneumonia")),
    (
        ("Edema",),
        6,
        0.45,
        (
            "[pulmonary|interstitial|overt] edema",
            "[edema|pulmonary edema]",
            "vascular congestion or edema",
            "*The pulmonary vasculature is normal, without edema.",
        ),
    ),
    (("Edema", "Pleural Effusion"), 6, 0.12, ("edema or pleural effusion", "pulmonary edema or effusion")),
    (
        ("Lung Lesion",),
        6,
        0.45,
        ("[suspicious|discrete|lung|pulmonary] nodule", "[nodule or mass|mass or nodule]", "lung mass"),
    ),
    (
        ("Atelectasis",),
        7,
        0.45,
        ("[atelectasis|basal atelectasis|lobar atelectasis]", "[significant|focal|linear] atelectasis"),
    ),
    (
        ("Pleural Effusion", "Pneumothorax"),
        8,
        0.45,
        (
            "pleural effusion or pneumothorax",
            "[effusion or pneumothorax|pneumothorax or effusion]",
            "[pneumothorax or pleural effusion|pleural fluid or pneumothorax]",
        ),
    ),
    (
        ("Pleural Effusion",),
        8,
        0.35,
        (
            "[pleural effusion|effusion|pleural fluid]",
            "*The costophrenic angles are [sharp|clear] without effusion.",
            "[sizable|layering|significant] pleural effusion",
            "*Both pleural spaces are free of effusion.",
        ),
    ),
    (
        ("Pneumothorax",),
        8,
        0.35,
        ("pneumothorax", "[visible|detectable|apical] pneumothorax", "[sizable|acute] pneumothorax"),
    ),
    (
        ("Pleural Other",),
        8,
        0.45,
        (
            "pleural [thickening|scarring|plaques]",
            "[pleural thickening or plaque|apical pleural thickening]",
            "*The pleura is [normal|unremarkable] without thickening.",
        ),
    ),
    (
        ("Fracture",),
        9,
        0.50,
        (
            "[acute|displaced|visible] fracture",
            "[rib fracture|acute bony fracture|fracture]",
            "*[The bones are|The osseous structures are|Bones are] intact without fracture.",
            "*[Ribs and clavicles are intact|Visualized ribs are intact], without fracture.",
        ),
    ),
)
NEGATION_FRAMES = (
    "No {nn}.",
    "There is no {nn}.",
    "No evidence of {nn}.",
    "No {nn} is [seen|identified|present|evident].",
    "There is no [evidence of|sign of|convincing] {nn}.",
    "Negative for {nn}.",
)
NO_FINDING = (
    "No acute cardiopulmonary [abnormality|process|disease|findings].",
    "No [acute|active] [abnormality|disease] in the chest.",
    "[Normal chest|Normal chest radiograph|Unremarkable chest|Normal examination of the chest].",
    "No radiographic abnormality of the [chest|thorax].",
    "[Unremarkable|Normal] [study|examination] without acute disease.",
    "No acute [thoracic|intrathoracic|cardiothoracic] [process|abnormality].",
    "[No evidence of|No sign of] active [disease|cardiopulmonary disease].",
)
NO_FINDING_DEVICES = (
    "No acute cardiopulmonary [abnormality|process|disease].",
    "[Devices|Support devices] in place without acute cardiopulmonary [disease|abnormality].",
    "No acute [thoracic|intrathoracic] [process|abnormality].",
)

# remarks that carry no label
LOW_VOLUMES = (
    "Lung volumes are [low|reduced].",
    "[Low lung volumes|Shallow inspiration|Poor inspiratory effort].",
    "The [inspiration|inspiratory effort] is [shallow|poor].",
)
FULL_VOLUMES = (
    "[Well inflated lungs|Good inspiration|Full inspiration].",
    "Lung volumes are [large|generous|normal to large].",
    "The lungs are [well inflated|well expanded].",
)
TORTUOUS = (
    "The aorta is [tortuous|unfolded].",
    "[Tortuous|Prominent|Unfolded] thoracic aorta.",
    "Prominent aortic knob.",
)
SCOLIOSIS = (
    "[Mild|Moderate|Slight] scoliosis [convex to the {bow}|with {bow} convexity].",
    "The spine [is curved|curves] to the {bow}.",
    "Scoliosis to the {bow} is [noted|seen|present].",
)
LARGE = ("[Large|Generous] soft tissues [limit|slightly limit] detail.", "Detail is limited by body habitus.")
TURNED = ("The patient is [rotated|turned] to the {turn}.", "[Slight|Mild|Some] rotation to the {turn}.")
TECHNIQUE = {
    "AP": (
        "[Portable AP|Single portable|Supine AP|Semi-upright AP] [view|film|radiograph] of the chest.",
        "[AP portable|Bedside AP] [technique|study].",
    ),
    "PA": ("[Single PA|Upright PA|Frontal PA] [view|film|radiograph] of the chest.", "PA [technique|projection]."),
    "both": ("[PA and lateral|Frontal and lateral|Two] views of the chest.", "[Two-view|PA and lateral] chest study."),
    "Lateral": (
        "[Single lateral|Left lateral|Lateral] [view|film] of the chest.",
        "Lateral [technique|projection] only.",
    ),
}
DEGENERATION = (
    "Degenerative change of the [spine|thoracic spine].",
    "[Mild|Moderate] spondylosis [is noted|is present].",
)
