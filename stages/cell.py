"""A cell of a study, with its own training, if it has one: `python stages/cell.py --variant STUDY/CELL/SEED`."""

import shutil
from pathlib import Path

from lookahead.artifacts import write_json
from lookahead.config import Study, read_params, with_overrides
from lookahead.evaluation.evaluate import PER_IMAGE, PICTURES, PRIMARY
from lookahead.evaluation.evaluator import CACHE, open_evaluator, save_table
from lookahead.evaluation.study import study_cells
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder, save_kv_encoder
from lookahead.stage import Job, Stage, main
from lookahead.training.checkpoint import NOT_IN_KEY, resume_folder
from lookahead.training.loop import train
from lookahead.world import open_denoiser
from lookahead.world.distributed import is_main_process, wait_for_everyone

CODE = (  # as in the studies' dvc.yaml
    *("artifacts.py", "portraits.py", "dataset", "evaluation", "features", "method", "models", "sampling", "training"),
    "world",
)


def encoder_of(job: Job, study: Study, name: str, seed: int) -> Path | None:
    """The folder of a cell's encoder, trained in the workspace where it is its own."""
    cell, checkpoints = study.cells[name], job.world.checkpoints
    if not cell.trained:
        return None if cell.encoder in ("base", "adapter") else job.runs / "train" / cell.encoder / "encoder"
    settings = with_overrides(job.world.train, study.train_changes(name) | {"seed": seed})
    training = job.work / "training"
    if not (training / "metrics.json").exists():  # what a training writes last
        train(checkpoints, settings, job.runs / "features", training, job.log, name=f"{name}/{seed}")
    wait_for_everyone()
    if is_main_process():
        shutil.rmtree(resume_folder(training), ignore_errors=True)
        if cell.encoder == "train_untuned_kv":
            kv = settings.kv  # its LoRAs change nothing yet: the base's own keys and values
            untuned = new_kv_encoder(open_denoiser(checkpoints).unet, kv.rank, kv.shared_rank, settings.seed)
            save_kv_encoder(training / "encoder" / KV_FILE, untuned)
    wait_for_everyone()
    return training / "encoder"


def stage(study_name: str, study: Study, name: str, seed: int) -> Stage:
    """The stage of one cell and seed."""
    cell = study.cells[name]

    def build(job: Job) -> None:
        settings = study.evaluation(job.world.evaluation())
        encoder = encoder_of(job, study, name, seed)
        trained = seed if cell.trained else job.world.train.seed
        cells = study_cells(study, name, encoder, trained, settings)
        table = open_evaluator(job.world.checkpoints, settings).run(cells, job.work / PICTURES, CACHE)
        if is_main_process():
            save_table(table, job.work / PER_IMAGE)
            means = table.groupby("sampler")[list(PRIMARY)].mean().stack()
            metrics = {f"{sampler}.{metric}": float(value) for (sampler, metric), value in means.items()}
            write_json(job.work / "metrics.json", metrics)
            job.log(metrics, 0)

    of_study = study.model_dump(mode="json", include={"split", "people", "photo_prompts", "protocol", "samplers"})
    own = {"cell": name, "encoder": cell.encoder, "sampling": cell.sampling} | of_study
    sections: tuple[str, ...] = ("checkpoints", "evaluate")
    inputs: tuple[str, ...] = ()
    if cell.trained:
        sections, inputs = ("checkpoints", "train", "evaluate"), ("features",)
        own |= {f"train.{path}": value for path, value in (study.train_changes(name) | {"seed": seed}).items()}
    elif cell.encoder not in ("base", "adapter"):
        inputs = (f"train/{cell.encoder}",)
    irrelevant = tuple(f"train.{name}" for name in NOT_IN_KEY if name != "steps")
    return Stage(f"{study_name}/{name}/{seed}", sections, inputs, build, own, code=CODE, irrelevant=irrelevant)


def stages() -> dict[str, Stage]:
    """Every cell of every study by study, name and seed."""
    return {
        f"{key}/{name}/{seed}": stage(key, study, name, seed)
        for key, study in read_params().studies.cells.items()
        for name in study.cells
        for seed in study.seeds
    }


if __name__ == "__main__":
    main(stages())
