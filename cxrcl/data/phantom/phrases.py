"""The wording of phantom reports. `[a|b]` is a choice, `{slot}` is filled from the finding (see `report`).

Countable noun phrases carry `{a}` and `{s}`, so that they can be read in the singular and in the plural.
"""

from __future__ import annotations

# noun phrases of what is present, by label or label/form
NOUNS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "{grade} [mediastinal widening|widening of the mediastinum]",
        "{grade} [widening|enlargement] of the [superior|upper] mediastinum",
        "{grade} enlargement of the [cardiomediastinum|mediastinal silhouette|cardiomediastinal contour]",
    ),
    "Cardiomegaly": (
        "{grade} cardiomegaly",
        "{grade} [cardiac enlargement|enlargement of the heart|enlargement of the cardiac silhouette]",
    ),
    "Lung Opacity": (
        "{a}{grade} [hazy|ill-defined|patchy] opacity{plural:ies} in {place}",
        "{a}{grade} [hazy|ill-defined|ground-glass] {loc} opacity{plural:ies}",
        "{grade} [hazy|patchy] opacification of {place}",
    ),
    "Lung Lesion": (
        "{a}{cm} cm [round|rounded|well-defined|solid] {nodule} in {place}",
        "{a}{cm} cm {loc} {nodule}",
        "{a}[well-circumscribed|discrete] {nodule} in {place} measuring {cm} cm",
    ),
    "Lung Lesion/multiple": (
        "{several} [pulmonary|lung] nodules, the largest {cm} cm in {place}",
        "{several} [round|well-defined|solid] lung nodules measuring up to {cm} cm",
        "{several} nodules, the largest [measuring|of] {cm} cm in {place}",
    ),
    "Edema": (
        "{grade} [pulmonary edema|interstitial edema|interstitial pulmonary edema]",
        "{grade} [pulmonary vascular congestion with edema|edema with perihilar haze|edema with septal lines]",
        "{grade} [bilateral perihilar|perihilar and interstitial] edema",
    ),
    "Consolidation": (
        "{grade} [dense|focal|lobar] consolidation in {place}",
        "{grade} {loc} consolidation",
        "{grade} [airspace consolidation|consolidation with air bronchograms] in {place}",
    ),
    "Pneumonia/patchy": (
        "{grade} [patchy|multifocal] opacities in {place} [consistent with|compatible with|in keeping with] pneumonia",
        "{grade} {loc} pneumonia with patchy opacities",
        "{grade} [mottled|confluent patchy] {loc} opacities [from|due to] pneumonia",
    ),
    "Pneumonia/lobar": (
        "{grade} consolidation in {place} [consistent with|compatible with|in keeping with] pneumonia",
        "{grade} {loc} pneumonia with [dense|lobar] consolidation",
        "{grade} {loc} consolidation [from|due to] pneumonia",
    ),
    "Atelectasis": (
        "{grade} [{side} basilar|{side} basal|{side} bibasal] [linear|plate-like|subsegmental|band-like] atelectasis",
        "{grade} [linear|discoid|streaky] atelectasis at {base}",
        "{grade} [bands|streaks] of atelectasis [at|above] {base}",
    ),
    "Atelectasis/volume loss": (
        "{grade} {side} [lower lobe|basal] atelectasis with [volume loss|a raised hemidiaphragm]",
        "{grade} [volume loss|elevation of the diaphragm] at {base} with atelectasis",
        "{grade} atelectasis at {base} with elevation of the {side} hemidiaphragm",
    ),
    "Pneumothorax": (
        "{a}{size} {side} [pneumothorax|apical pneumothorax]",
        "{a}{size} [pneumothorax|apical pneumothorax] on the {side}",
        "{a}{size} {side} pneumothorax with a visible pleural line",
    ),
    "Pleural Effusion": (
        "{a}{size} {side} [pleural effusion{s}|effusion{s}|pleural effusion{s}]",
        "{a}{size} {side} pleural effusion{s} with blunting of the costophrenic [angle{s}|sulcus]",
        "{a}{size} {side} layering pleural effusion{s}",
    ),
    "Pleural Other/thickening": (
        "{grade} {side} [pleural thickening|lateral pleural thickening|pleural scarring]",
        "{grade} [lumpy|smooth|nodular] pleural thickening along {wall}",
        "{grade} [peripheral|lateral] pleural thickening on the {side}",
    ),
    "Pleural Other/apical cap": (
        "{grade} {side} [apical pleural thickening|apical pleural capping|apical pleural scarring]",
        "{grade} pleural thickening at {apex}",
        "{grade} [scarring of the pleura|pleural capping] at {apex}",
    ),
    "Pleural Other/plaques": (
        "{grade} {side} [calcified pleural plaques|pleural plaques|pleural calcification]",
        "{grade} [calcified plaques|plaques] of the {side} pleura",
        "{grade} {side} pleural plaques [including the diaphragm|with calcification]",
    ),
    "Fracture/rib": (
        "{number} [displaced|acute|displaced acute] {side} rib fractures",
        "[displaced|acute] fractures of {number} {side} [upper|lateral|posterolateral] ribs",
        "{number} {side} rib fractures with [displacement|a cortical step|step-off]",
    ),
    "Fracture/healing rib": (
        "{number} [healing|old healing|subacute] {side} rib fractures",
        "healing fractures of {number} {side} ribs [with callus|with callus formation]",
        "{number} {side} rib fractures with callus",
    ),
    "Fracture/clavicle": (
        "{a}[displaced|midshaft|displaced midshaft] {side} clavicle fracture",
        "{a}[displaced|mid-shaft] fracture of the {side} clavicle",
        "{a}{side} clavicular fracture with [displacement|a step-off]",
    ),
}

# whole sentences that affirm, beside the frames below
AFFIRM: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "The [superior mediastinum|mediastinum|upper mediastinum] is {gradely} [widened|enlarged|broadened].",
        "The [mediastinal|cardiomediastinal] [silhouette|contour] is {gradely} [widened|enlarged].",
        "The mediastinal contours are {gradely} [prominent|widened].",
        "[Mediastinal widening|Widening of the mediastinum] is [present|noted].",
    ),
    "Cardiomegaly": (
        "The [heart|cardiac silhouette] is {gradely} [enlarged|increased in size].",
        "Heart size is {gradely} [enlarged|increased].",
        "The cardiothoracic ratio is {gradely} [increased|raised], indicating cardiomegaly.",
        "[Cardiac enlargement|Cardiomegaly] is [present|noted].",
    ),
    "Lung Opacity": (
        "[Airspace|Parenchymal|Pulmonary] opacities are [seen|present|noted].",
        "An area of increased [lung opacity|opacity] is [seen|present] in {place}.",
        "There is [lung|pulmonary|parenchymal] opacity in {place}.",
        "Hazy [lung|pulmonary] opacification is [present|noted].",
    ),
    "Lung Lesion": (
        "A [pulmonary|lung] {lump} is [seen|present|noted].",
        "There is a [pulmonary|lung] {lump} on the {side}.",
        "A [focal|round|nodular] lung lesion, a {cm} cm {lump}, projects over {place}.",
    ),
    "Lung Lesion/multiple": (
        "[Pulmonary|Lung] nodules are [seen|present|noted].",
        "There are {several} [pulmonary|lung] nodules.",
        "Nodular lung lesions, {several} nodules, [project over the lungs|are present].",
    ),
    "Edema": (
        "Indistinct [pulmonary vessels|vascular markings] and septal lines indicate {grade} edema.",
        "Perihilar [haziness|haze] and Kerley lines [are in keeping with|indicate] {grade} pulmonary edema.",
        "There is [pulmonary|interstitial] edema.",
        "[Pulmonary|Interstitial|Perihilar] edema is [present|seen|noted].",
        "Pulmonary vascular congestion and edema are [seen|present].",
    ),
    "Consolidation": (
        "{Place} {is_place} [consolidated|densely consolidated] with air bronchograms.",
        "[Focal|Airspace|Lobar] consolidation is [present|seen|noted].",
        "There is consolidation in {place}.",
        "An area of [consolidated lung|lung consolidation] is [seen|noted].",
    ),
    "Pneumonia/patchy": (
        "Findings are [consistent|compatible] with pneumonia, with [patchy|airspace|pulmonary] opacities.",
        "There is pneumonia with [patchy|pulmonary] opacities in {place}.",
        "[Infectious|Patchy] opacities of pneumonia are [present|seen] in {place}.",
    ),
    "Pneumonia/lobar": (
        "Findings are [consistent|compatible] with pneumonia, with [lobar|airspace] consolidation.",
        "There is pneumonia with consolidation in {place}.",
        "[Infectious|Lobar] consolidation of pneumonia is [present|seen] in {place}.",
    ),
    "Atelectasis": (
        "[Basilar|Linear|Subsegmental|Plate-like] atelectasis is [present|seen|noted].",
        "There is [basilar|linear|band-like] atelectasis on {sides}.",
        "[Bands|Streaks] of atelectasis are [seen|present] at {base}.",
    ),
    "Atelectasis/volume loss": (
        "Volume loss [on the {side} is consistent with|at {base} indicates] atelectasis.",
        "There is [basilar|lower lobe] atelectasis on the {side}.",
        "The {side} hemidiaphragm is {gradely} raised by atelectasis.",
    ),
    "Pneumothorax": (
        "A pleural line [is seen|is visible] on the {side}, indicating a {size} pneumothorax.",
        "{Side} apical lucency without lung markings [indicates|represents] a {size} pneumothorax.",
        "[A pneumothorax|Pneumothorax] is [seen|present|noted].",
        "There is a pneumothorax on the {side}.",
        "Air in the {side} pleural space is [consistent with|due to] pneumothorax.",
    ),
    "Pleural Effusion": (
        "Blunting of the costophrenic [angle{s}|sulcus] on {sides} indicates {a}{size} pleural effusion{s}.",
        "Fluid in the {side} pleural space [forms|represents] {a}{size} effusion{s}.",
        "[A pleural effusion|Pleural effusion|Pleural fluid] is [seen|present|noted].",
        "There is [a pleural effusion|pleural fluid|an effusion] on {sides}.",
    ),
    "Pleural Other/thickening": (
        "[Pleural thickening|Thickening of the pleura|Pleural scarring] is [present|seen|noted].",
        "There is pleural thickening on the {side}.",
    ),
    "Pleural Other/apical cap": (
        "Apical pleural [thickening|scarring|capping] is [present|seen|noted].",
        "There is pleural thickening at {apex}.",
    ),
    "Pleural Other/plaques": (
        "[Pleural plaques|Calcified pleural plaques] are [present|seen|noted].",
        "There are pleural plaques on {sides}.",
        "[Calcification of the pleura|Pleural calcification] from plaques is noted.",
    ),
    "Fracture/rib": (
        "[Rib fractures|Displaced rib fractures|Fractured ribs] are [seen|present|noted].",
        "There are rib fractures on the {side}.",
        "Cortical disruption of {number} {side} ribs is [consistent with|due to] fracture.",
    ),
    "Fracture/healing rib": (
        "[Healing rib fractures|Rib fractures with callus] are [seen|present|noted].",
        "There are [healing|old] rib fractures on the {side}.",
    ),
    "Fracture/clavicle": (
        "A [fracture of the clavicle|clavicle fracture] is [seen|present|noted].",
        "There is a fracture of the {side} clavicle.",
        "The {side} clavicle has a [displaced|step-like] fracture.",
    ),
    "Support Devices/endotracheal tube": (
        "An endotracheal tube [terminates|ends|is seen with its tip] [above the carina|in the mid trachea].",
        "The [ET|endotracheal] tube tip [lies|projects] [above the carina|in good position].",
        "The patient is intubated, with the endotracheal tube above the carina.",
        "Endotracheal tube in [satisfactory|standard|expected] position.",
    ),
    "Support Devices/central line": (
        "A {side} central venous [catheter|line] [ends|terminates] in the [SVC|superior vena cava].",
        "The {side} central line tip [projects over|lies in] the [SVC|superior vena cava|cavoatrial junction].",
        "{Side} central venous catheter in [place|standard position].",
        "Tip of a {side} central catheter is seen in the [lower SVC|SVC].",
    ),
    "Support Devices/port": (
        "A {side} chest port [is in place|is present|ends in the SVC].",
        "A {side} [chest wall|subcutaneous] port catheter [reaches|extends to] the superior vena cava.",
        "The tip of the {side} port catheter [lies|projects] over the [SVC|cavoatrial junction].",
    ),
    "Support Devices/pacemaker": (
        "A {side} [chest|sided chest|pectoral] pacemaker is [present|in place] with leads in the right heart.",
        "{Side} [pectoral|chest wall] pacemaker with [intact leads|leads in expected position].",
        "A pacemaker generator [overlies|projects over] the {side} upper chest.",
        "Cardiac pacing device on the {side} with leads [in place|in the right ventricle].",
    ),
    "Support Devices/chest tube": (
        "A {side} chest tube [is in place|is present|courses toward the apex].",
        "A {side} [pleural drain|thoracostomy tube] [is in place|is seen].",
        "{Side} chest tube [in position|with its tip at the apex].",
    ),
    "Support Devices/nasogastric tube": (
        "A [nasogastric|feeding|enteric] tube [passes|courses] below the diaphragm [into|to] the stomach.",
        "The [NG|nasogastric|enteric] tube [ends|terminates] in the stomach.",
        "[Nasogastric|Enteric] tube tip [projects over|lies in] the stomach.",
    ),
    "Support Devices/ECG leads": (
        "[ECG|Monitoring|EKG] leads [overlie|project over] the chest.",
        "[External|Overlying] monitoring leads are [present|noted|in place].",
        "[ECG electrodes|Monitoring electrodes] and leads [overlie|cross] the thorax.",
    ),
    "Support Devices/sternal wires": (
        "[Median sternotomy wires|Sternal wires|Sternotomy wires] are [intact|present|aligned|noted].",
        "[Intact|Aligned|Multiple] [sternotomy|sternal] wires are [seen|present] in the midline.",
        "The patient has had a sternotomy, with wires [in place|intact].",
    ),
}

# frames around a noun phrase; {Np} starts a sentence, {np} carries its article
AFFIRM_FRAMES = (
    "There {is} {np}.",
    "{Np} {is} [present|seen|noted|identified].",
    "{Np}.",
    "[The film shows|This study shows|Imaging demonstrates] {np}.",
    "[Findings include|Note is made of] {np}.",
)
HEDGE_FRAMES = (
    "[Possible|Questionable|Equivocal] {bare}.",
    "[Subtle|Faint] changes may [represent|reflect] {bare}.",
    "[There may be|There could be|One may suspect] {bare}.",
    "[Cannot exclude|It is difficult to exclude] {bare}.",
    "Appearances [raise the possibility of|raise the question of|are suspicious for] {bare}.",
    "{Bare} [cannot be excluded|is possible|is difficult to exclude].",
    "{Bare} is [suspected|questioned] but not certain.",
)
IMPRESSION_FRAMES = ("{Np}.", "{Np}.", "{Np}, [as described|as above].", "[Findings of|Appearance of] {bare}.")

# what a hedge or an opinion in the impression may speak of
HEDGED: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("[borderline|slight] widening of the mediastinum", "mediastinal widening"),
    "Cardiomegaly": ("[borderline|slight] cardiomegaly", "[borderline|slight] enlargement of the heart"),
    "Lung Opacity": ("[vague|faint|subtle] {loc} opacity", "[vague|faint] opacity in {place}"),
    "Lung Lesion": (
        "[small|faint|vague] nodule in {place}",
        "[small|subtle] {loc} nodule",
        "[small|faint] lung nodule",
    ),
    "Edema": ("[early|minimal|slight] pulmonary edema", "[early|minimal] interstitial edema"),
    "Consolidation": ("[early|developing|subtle] {loc} consolidation", "[early|faint] consolidation in {place}"),
    "Pneumonia": (
        "[early|developing] {loc} pneumonia with faint opacity",
        "faint opacity of early pneumonia in {place}",
    ),
    "Atelectasis": ("[minimal|slight|minor] {side} basal atelectasis", "[minimal|trace] atelectasis at {base}"),
    "Pneumothorax": ("[tiny|very small|minimal] {side} pneumothorax", "[tiny|trace] apical pneumothorax on the {side}"),
    "Pleural Effusion": ("[trace|tiny|minimal] {side} pleural effusion", "[trace|minimal] effusion on {sides}"),
    "Pleural Other": ("[slight|minimal] {side} pleural thickening", "[subtle|minor] pleural scarring on {sides}"),
    "Fracture": (
        "[subtle|nondisplaced|hairline] {side} [rib|bony] fracture",
        "[nondisplaced|hairline] fracture on {sides}",
    ),
}
PNEUMONIA_OPINIONS = (
    "[This may|These changes may|The opacity may] [represent|reflect] pneumonia in the right clinical setting.",
    "Superimposed pneumonia [cannot be excluded|is possible].",
    "[Possible|Suspected] pneumonia; clinical correlation [advised|is suggested].",
    "Pneumonia is [possible|a consideration that cannot be excluded].",
    "Appearances [raise the possibility of|are suspicious for] pneumonia.",
    "Infection is suspected and possible pneumonia should be followed.",
)

DEVICES_IMPRESSION = (
    "Support devices [are in place|are present|in place|as described].",
    "[Lines and tubes|Devices|Indwelling devices] are [in place|present|as described].",
    "[Support devices|Medical devices] [remain in place|in expected position].",
)

# how a finding has changed since the previous study
TRENDS = {
    "larger": ("[increased|larger|worse|more pronounced] [since|compared with|than on] the prior [study|examination]",),
    "smaller": ("[decreased|smaller|improved|less pronounced] [since|compared with] the prior [study|examination]",),
    "same": ("[unchanged|stable|similar] [from|compared with] the prior [study|examination]", "[unchanged|stable]"),
    "new": (
        "new [since|compared with|from] the prior [study|examination]",
        "[new|newly apparent] since the last study",
    ),
}
