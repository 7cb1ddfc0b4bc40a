"""How fast the evaluation draws and judges, of the untuned adapter in the world of params.yaml.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/evaluate.py                # 24 people, 8 prompts each
    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/evaluate.py --people 6

Drawing: in batches with all conditions computed once, against the stock diffusers pipeline with one prompt a call, in
turns on the same pictures, so that a busy machine disturbs both alike. Judging: pictures that are kept, against drawing
them again and judging.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from lookahead.config import Checkpoints, Evaluate, read_evaluate, read_params, with_overrides
from lookahead.dataset.prompts import read_prompts
from lookahead.evaluation.measure import measure
from lookahead.evaluation.panel import encode_conditions, open_judges, open_sampler
from lookahead.evaluation.pictures import Conditions, draw_pictures, read_pictures
from lookahead.evaluation.plan import Plan, Shot, make_plan
from lookahead.evaluation.store import adapter_key, shelf, take
from lookahead.portraits import Person, read_people, read_photo
from lookahead.sampling.loop import Sampler
from lookahead.world import Pipeline, open_image_encoder, open_pipeline

GOALS = {"batched": 3.0, "judged": 20.0}


@dataclass(frozen=True)
class Bench:
    """An opened evaluation of the untuned adapter."""

    checkpoints: Checkpoints
    settings: Evaluate
    people: list[Person]
    plan: Plan
    pipe: Pipeline
    sampler: Sampler


def open_bench(people: int) -> Bench:
    """The evaluation of the first people."""
    world = read_params().active
    settings = with_overrides(read_evaluate(world.evaluate), {"people": people})
    found = read_people(Path(settings.portraits), people)
    plan = make_plan(read_prompts(settings.prompts), settings)
    pipe = open_pipeline(world.checkpoints)
    pipe.set_progress_bar_config(disable=True)
    encoder, processor = open_image_encoder(world.checkpoints)
    pipe.register_modules(image_encoder=encoder, feature_extractor=processor)
    return Bench(world.checkpoints, settings, found, plan, pipe, open_sampler(world.checkpoints, pipe, settings, None))


def part_of(plan: Plan, shots: list[Shot]) -> Plan:
    """Some shots of a plan."""
    return Plan(plan.styles, plan.scenes, plan.prompts, shots)


def one_by_one(bench: Bench, shots: list[Shot]) -> None:
    """Each prompt in a call of its own to diffusers' pipeline, from the photo and the words."""
    for shot in shots:
        bench.pipe(
            bench.plan.prompts[bench.plan.style_number(shot)][bench.plan.scene_number(shot)],
            ip_adapter_image=Image.fromarray(read_photo(bench.people[shot.person].reference)),
            num_inference_steps=bench.settings.steps,
            guidance_scale=bench.settings.guidance,
            generator=[torch.Generator().manual_seed(shot.seed)],
        )


def drawing(bench: Bench, work: Path) -> tuple[float, float]:
    """Images per second in batches, the conditions included, and one by one."""
    taken = {"batch": 0.0, "single": 0.0}
    batch, shots = bench.settings.batch, bench.plan.shots
    begun = time.perf_counter()
    conditions = encode_conditions(bench.checkpoints, bench.pipe, bench.people, bench.plan)
    taken["batch"] += time.perf_counter() - begun
    one_by_one(bench, shots[:1])  # warms up
    for start in range(0, len(shots), batch):
        chunk = shots[start : start + batch]
        begun = time.perf_counter()
        draw_pictures(bench.sampler, part_of(bench.plan, chunk), conditions, batch, work / f"{start:05d}", "batch")
        taken["batch"] += time.perf_counter() - begun
        begun = time.perf_counter()
        one_by_one(bench, chunk)
        taken["single"] += time.perf_counter() - begun
    return len(shots) / taken["batch"], len(shots) / taken["single"]


def judging(bench: Bench, work: Path) -> tuple[float, float]:
    """Seconds to draw, keep and judge everything, and to judge it again from what is kept."""
    conditions = encode_conditions(bench.checkpoints, bench.pipe, bench.people, bench.plan)
    return tuple(_evaluated(bench, conditions, work, work / out) for out in ("first", "again"))  # type: ignore[return-value]


def _evaluated(bench: Bench, conditions: Conditions, work: Path, out: Path) -> float:
    judges = open_judges(bench.checkpoints, bench.people, bench.plan)
    batch = bench.settings.batch
    begun = time.perf_counter()
    place = shelf(
        work / "store",
        bench.checkpoints,
        bench.settings,
        bench.people,
        bench.plan,
        adapter_key(bench.checkpoints, None),
        None,
    )

    def fill(folder: Path) -> None:
        draw_pictures(bench.sampler, bench.plan, conditions, batch, folder, out.name)

    take(place, bench.plan, batch, fill, out)
    list(measure(out.name, bench.plan, read_pictures(out), judges, batch))
    return time.perf_counter() - begun


def told(ratio: float, goal: float) -> str:
    """A ratio beside what was hoped for."""
    return f"{ratio:.1f} times as fast (goal: {goal:g}{'' if ratio >= goal else ', missed'})"


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=24, help="first people of the split")
    options = parser.parse_args()
    bench = open_bench(options.people)
    with tempfile.TemporaryDirectory() as folder:
        batch, single = drawing(bench, Path(folder) / "drawing")
        anew, again = judging(bench, Path(folder))
    print(f"{len(bench.plan.shots)} pictures, {torch.get_num_threads()} threads, batches of {bench.settings.batch}")
    print(f"in batches {batch:.2f} images/s, one prompt a call {single:.2f}: {told(batch / single, GOALS['batched'])}")
    print(f"drawn and judged in {anew:.1f} s, judged again in {again:.1f} s: {told(anew / again, GOALS['judged'])}")


if __name__ == "__main__":
    main()
