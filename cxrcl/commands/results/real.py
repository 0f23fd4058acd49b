"""The part on real images."""

from __future__ import annotations

from pathlib import Path

from cxrcl.commands.results.figures import OF_SEEDS, SEEDS, aurocs, results, study
from cxrcl.commands.results.running import DOWNLOAD, Part, command
from cxrcl.evaluation.report.table import Row, Table, number

# Findings against images tagged normal.
FOUR = ("Cardiomegaly", "Pleural Effusion", "Lung Opacity", "Atelectasis")
DEVICES = "Support Devices"


def iu(out: Path, has_real: bool) -> Part:
    data = out / "cxr_real"
    folders = [out / f"iu-{seed}" for seed in SEEDS]
    commands = [command(f"scripts/prepare.py cxr_real --hold-out 0.2 --force --source {DOWNLOAD} --out {data}")]
    for seed, folder in zip(SEEDS, folders):
        run = ("experiment=iu_clip", f"data.root={data}", f"seed={seed}", f"run_dir={folder}")
        commands.append(command("train.py", *run))
        checkpoint = f"checkpoint={folder}/checkpoints/last.pt"
        commands.append(command("evaluate.py experiment=evaluate_iu", checkpoint, f"out={folder}/scores"))

    def read() -> list[Table]:
        scores = [folder / "scores" for folder in folders]
        chosen = {"labels": (*FOUR, DEVICES), "mean_over": FOUR, "against_normal": (DEVICES,)}
        clip = aurocs(scores, "zero_shot", data, **chosen)
        ridge = aurocs(scores[:1], "pixel_ridge", data, **chosen)
        rows: list[Row] = []
        for label, (positives, negatives) in zip(clip.labels, clip.counts):
            rows.append(
                [label, f"{positives} / {negatives}", clip.cell(label), ridge.cell(label), clip.minus(ridge, label)]
            )
        rows.insert(len(FOUR), ["mean of the four", "", clip.cell(), ridge.cell(), clip.minus(ridge)])
        found = [results(each)["retrieval"] for each in scores]
        reports = f"{found[0]['image_to_text']['gallery']:.0f} reports"
        by_seed = [["zero-shot mean of the four", *clip.seeds()]] + [
            [
                f"R@5 {way} ({reports}; chance {number(found[0][key]['chance_r5'])})",
                *(number(f[key]["r5"]) for f in found),
            ]
            for way, key in (("image -> text", "image_to_text"), ("text -> image", "text_to_image"))
        ]
        head = ["AUROC", "positives / normal", "zero-shot", "ridge on pixels, with labels", "zero-shot minus ridge"]
        return [
            Table(f"{OF_SEEDS} Whether normal images are free of devices is not known.", head, rows),
            Table("By seed", ["", *(f"seed {seed}" for seed in SEEDS)], by_seed),
        ]

    text = (
        "CLIP from scratch on frontal Indiana University images and their reports, scored on all frontal images of "
        "patients that were held out before any training (the data's own valid and test, and a fifth of the patients "
        "of train by a hash of their ids), each finding against images tagged normal. Settings and prompts were "
        "chosen on another fifth of the training patients (docs/real_images.md)."
    )
    lacks = "" if has_real else "needs the real collection: `make results REAL=DOWNLOAD`"
    return Part("iu", "Real images", text, commands, read, lacks)


def transfer(out: Path, has_real: bool) -> Part:
    """On the splits that the data have: the encoder has seen no patient of their test."""
    before = iu(out, has_real)
    data, folder = out / "cxr_real_own_splits", out / "iu-transfer"
    labels = f"data.labels=[{','.join((*FOUR, DEVICES))}]"
    commands = [
        *before.commands[:2],
        command(f"scripts/prepare.py cxr_real --force --source {DOWNLOAD} --out {data}"),
        command(
            f"finetune.py experiment=compare_init study.inits.clip={out}/iu-0/checkpoints/last.pt data.root={data}",
            *("data.views=[PA,AP]", "data.filter={source: [iu]}", "study.draws=[0]", labels, f"run_dir={folder}"),
        ),
    ]
    text = (
        "A linear probe on 1, 10 and 100 % of the training patients, chosen on valid, scored on the data's own test "
        "split; labels that the source gives."
    )
    return Part("iu_transfer", "Transfer, real images", text, commands, lambda: [study(folder)], before.lacks)
