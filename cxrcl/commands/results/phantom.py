"""Parts on phantom images."""

from __future__ import annotations

import json
from pathlib import Path

from cxrcl.commands.results.figures import OF_SEEDS, SEEDS, aurocs, results, spread, study
from cxrcl.commands.results.running import Command, Part, command
from cxrcl.evaluation.report.table import Cell, Row, Table, number


def _demo_of(out: Path, seed: int) -> Command:
    return command("-m cxrcl demo", f"seed={seed}", f"run_dir={out}/demo-{seed}")


def demo(out: Path, images: Path) -> Part:
    folders = [out / f"demo-{seed}" for seed in SEEDS]

    def read() -> list[Table]:
        clip, ridge = (aurocs(folders, name, images) for name in ("zero_shot", "pixel_ridge"))
        scores: list[Row] = [
            ["CLIP, zero-shot", *clip.seeds(), clip.cell()],
            ["view position alone", *["" for _ in SEEDS], aurocs(folders[:1], "view_only", images).cell()],
            [
                "ridge on 32 x 32 pixels, with labels",
                *["" for _ in SEEDS],
                aurocs(folders[:1], "pixel_ridge", images).cell(),
            ],
            ["zero-shot minus ridge", *["" for _ in SEEDS], clip.minus(ridge)],
        ]
        found = [results(folder)["retrieval"] for folder in folders]
        ways = {"image -> text": "image_to_text", "text -> image": "text_to_image"}
        retrieval = [
            [
                way,
                *(spread([each[key][k] for each in found]) for k in ("r1", "r5", "r10")),
                number(found[0][key]["chance_r5"], 4),
            ]
            for way, key in ways.items()
        ]
        times = [json.loads((folder / "demo.json").read_text(encoding="utf-8")) for folder in folders]
        speed = [[str(s), number(t["seconds"], 0), number(t["images_per_second"], 0)] for s, t in zip(SEEDS, times)]
        head = [f"seed {seed}" for seed in SEEDS]
        return [
            Table(f"Mean AUROC of {len(clip.labels)} findings. {OF_SEEDS}", ["mean AUROC", *head, "all seeds"], scores),
            Table(
                "Retrieval: mean [lowest, highest] over seeds.", ["", "R@1", "R@5", "R@10", "chance of R@5"], retrieval
            ),
            Table("Time", ["seed", "seconds in all", "images/s while training"], speed),
        ]

    text = "`make demo` with three seeds: the best of three evaluations on valid, scored on test."
    return Part("demo", "Phantom images, zero-shot and retrieval", text, [_demo_of(out, seed) for seed in SEEDS], read)


PROBED = {
    "random": ("objective=simclr", "optimizer.lr=0", "trainer.max_steps=100"),
    "moco": ("objective=moco", "objective.momentum=0.99", "trainer.max_steps=600"),
    "simclr": ("objective=simclr", "trainer.max_steps=600"),
    "clip": ("objective=clip", "trainer.max_steps=600"),
}


def _probe(out: Path, name: str, seed: int) -> list[Command]:
    folder = out / f"probe-{name}-{seed}"
    train = command("train.py", *PROBED[name], f"seed={seed}", "data.num_workers=0", "evals=[]", f"run_dir={folder}")
    checkpoint = f"checkpoint={folder}/checkpoints/last.pt"
    return [train, command("evaluate.py", checkpoint, "evals=[linear_probe]", f"out={folder}/scores")]


def probes(out: Path, images: Path) -> Part:
    def read() -> list[Table]:
        found = {
            name: aurocs([out / f"probe-{name}-{seed}" / "scores" for seed in SEEDS], "linear_probe", images)
            for name in PROBED
        }
        rows: list[Row] = [
            [name, *one.seeds(), one.cell(), "" if name == "random" else one.minus(found["random"])]
            for name, one in found.items()
        ]
        head = ["encoder", *(f"seed {seed}" for seed in SEEDS), "all seeds", "gain over random"]
        return [
            Table(f"Mean AUROC of a linear probe on the frozen encoder, phantom test split. {OF_SEEDS}", head, rows)
        ]

    text = (
        "600 steps of each objective. The random encoder has its batch statistics re-estimated in 100 steps with a "
        "learning rate of 0."
    )
    commands = [each for name in PROBED for seed in SEEDS for each in _probe(out, name, seed)]
    return Part("probes", "Pre-training against a random encoder", text, commands, read)


def stem(out: Path, images: Path) -> Part:
    encoders = ("vit_convstem_small", "vit_patchify_small")
    folders = {name: [out / f"{name}-{seed}" for seed in SEEDS] for name in encoders}

    def commands() -> list[Command]:
        made = []
        for name, of_seeds in folders.items():
            for seed, folder in zip(SEEDS, of_seeds):
                settings = (f"image_encoder={name}", f"seed={seed}", "trainer.max_steps=300", "evals=[]")
                made.append(command("train.py", *settings, f"run_dir={folder}"))
                checkpoint = f"checkpoint={folder}/checkpoints/last.pt"
                made.append(
                    command("evaluate.py", checkpoint, "evals=[zero_shot,linear_probe]", f"out={folder}/scores")
                )
        return made

    def read() -> list[Table]:
        tables = []
        for evaluator in ("zero_shot", "linear_probe"):
            stem, patches = (
                aurocs([each / "scores" for each in folders[name]], evaluator, images) for name in encoders
            )
            rows: list[Row] = [[name, *one.seeds(), one.cell()] for name, one in zip(encoders, (stem, patches))]
            rows.append(["difference", *["" for _ in SEEDS], stem.minus(patches)])
            head = ["image_encoder", *(f"seed {seed}" for seed in SEEDS), "all seeds"]
            tables.append(Table(f"Mean AUROC, {evaluator.replace('_', ' ')}. {OF_SEEDS}", head, rows))
        return tables

    text = "The same small ViT with 144 tokens at 96 pixels, CLIP on phantom images, 300 steps of 64."
    return Part("stem", "A convolutional stem against patches", text, commands(), read)


def transfer(out: Path) -> Part:
    folder = out / "transfer"
    starts = {name: f"{out}/probe-{name}-0/checkpoints/last.pt" for name in ("moco", "simclr")}
    starts["clip"] = f"{out}/demo-0/checkpoints/best.pt"
    inits = [f"study.inits.{name}={file}" for name, file in starts.items()]
    commands = [_probe(out, "moco", 0)[0], _probe(out, "simclr", 0)[0], _demo_of(out, 0)]
    commands.append(command("finetune.py experiment=compare_init", *inits, f"run_dir={folder}"))

    text = "A linear probe on 1, 10 and 100 % of the training patients, chosen on valid; phantom images."
    return Part("transfer", "Transfer", text, commands, lambda: [study(folder)])


def pointing(out: Path) -> Part:
    file = out / "pointing.json"
    commands = [
        _demo_of(out, 0),
        command("scripts/heatmap_pointing.py", f"{out}/demo-0/checkpoints/best.pt", "--json", file),
    ]

    def read() -> list[Table]:
        found = json.loads(file.read_text(encoding="utf-8"))
        n = found["images"]
        rows = [
            [label, number(hits), number(area), number(other)]
            for label, (hits, area, other) in [*found["labels"].items(), ("all", found["all"])]
        ]
        half = 1.96 * (found["all"][0] * (1 - found["all"][0]) / n) ** 0.5
        rows[-1][1] = Cell(rows[-1][1], f"[{found['all'][0] - half:.3f}, {found['all'][0] + half:.3f}]")
        head = ["finding", "peak in the box", "area of the box: chance", "peaks of other labels' maps"]
        return [Table(f"{n} phantom images with one finding; one seed, interval over images.", head, rows, totals=1)]

    return Part("pointing", "Heat-maps", "How often a map's peak lies in the box of the finding.", commands, read)
