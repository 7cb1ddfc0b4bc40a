"""The page: Gradio's components and the events that they call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from threading import Event
from typing import Any

import gradio as gr
from PIL import Image

from lookahead.dataset.prompts import Prompts
from lookahead.demo.studio import TUNED, UNTUNED, Drawn, Options, Stopped, Studio
from lookahead.errors import InputError
from lookahead.portraits import open_picture

_TITLES = {UNTUNED: "Untuned adapter", TUNED: "Tuned with lookahead"}
_INTRODUCTION = """# Pictures of a person

A portrait and a prompt in, pictures out; everything stays on this machine. **Draw people who agreed to it**, and say
of a picture that it is generated. *Identity* is the cosine to the portrait by a recogniser that the training never saw:
a stranger scores about 0, the same photo 1. *Prompt* is the cosine of picture and prompt by CLIP."""
_NO_TUNED = """**No tuned encoder is here**: only the untuned adapter draws. `make repro` trains one; or start the page
again with `lookahead demo --encoder FOLDER`."""


class Page:
    """Handles the page's events; only the visitor who started a drawing can stop it."""

    def __init__(self, studio: Studio) -> None:
        """Draw with a studio."""
        self._studio = studio
        self._stops: defaultdict[str, Event] = defaultdict(Event)  # by session

    def look(self, portrait: str | None) -> tuple[Image.Image | None, str]:
        """The detected face, and whether the portrait, an uploaded file, can be used."""
        try:
            picture = _open(portrait)
        except InputError as error:
            return None, f"This cannot be used. {error}."
        return (None, "") if picture is None else self._studio.look(picture)

    def begin(self, request: gr.Request) -> str:
        """Prepare a drawing outside the queue, so that a waiting one can be stopped, too."""
        if self._stops[str(request.session_hash)].is_set():
            self._stops[str(request.session_hash)] = Event()
        return "Waiting for its turn."

    def draw(
        self,
        portrait: str | None,
        prompt: str,
        images: int,
        seed: float,
        adapter_scale: float,
        guidance: float,
        kv: bool,
        fast: bool,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008  (how Gradio hands it in)
    ) -> Iterator[list[Any]]:
        """The galleries and a status line, anew after each encoder."""
        stop = self._stops[str(request.session_hash)]
        options = Options(prompt, int(images), int(seed), adapter_scale, guidance, kv, fast)
        galleries: dict[str, list[tuple[Image.Image, str]]] = {name: [] for name in self._studio.encoders}
        scores: list[str] = []
        yield [*galleries.values(), "Drawing."]

        def report(name: str, step: int, steps: int) -> None:
            progress((step, steps), desc=f"{name}, step {step} of {steps}")

        try:
            for name, drawn in self._studio.draw(_open(portrait), options, stop, report, gr.Warning):
                galleries[name] = [(one.picture, one.caption) for one in drawn]
                scores.append(mean_scores(name, drawn))
                yield [*galleries.values(), " ".join(scores)]
        except Stopped:
            yield [*galleries.values(), "Stopped."]
        except InputError as error:
            yield [*galleries.values(), "Not drawn."]
            raise gr.Error(str(error), title="This cannot be drawn", print_exception=False) from None

    def stop(self, request: gr.Request) -> str:
        """Stop this visitor's drawings, each at its next step."""
        self._stops[str(request.session_hash)].set()
        return "Stopping."


def _open(portrait: str | None) -> Image.Image | None:
    """An upload as every portrait is opened, without its path, which means nothing to a visitor."""
    return None if portrait is None else open_picture(Path(portrait).read_bytes())


def mean_scores(name: str, drawn: Sequence[Drawn]) -> str:
    """An encoder's mean scores; a picture without a face counts as identity 0."""
    identity, prompt = fmean(one.identity or 0.0 for one in drawn), fmean(one.prompt for one in drawn)
    return f"{_TITLES[name]}: identity {identity:.2f}, prompt {prompt:.2f} on average."


def build(studio: Studio, prompts: Prompts, examples: Sequence[Path]) -> gr.Blocks:
    """The page with its events; `examples` are portraits to click on."""
    page, settings = Page(studio), studio.settings
    first = [next(iter(prompts.styles)), next(iter(prompts.scenes))]
    with gr.Blocks(title="lookahead", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown(_INTRODUCTION)
        if TUNED not in studio.encoders:
            gr.Markdown(_NO_TUNED)
        with gr.Row():
            with gr.Column():
                portrait = gr.Image(type="filepath", image_mode=None, label="Portrait", height=260)
                if examples:
                    gr.Examples([[str(path)] for path in examples], [portrait], label="Example portraits")
            with gr.Column():
                face = gr.Image(label="Detected face", interactive=False, height=260)
                message = gr.Markdown()
        with gr.Row():
            style = gr.Dropdown(list(prompts.styles), value=first[0], label="Style")
            scene = gr.Dropdown(list(prompts.scenes), value=first[1], label="Scene")
            prompt = gr.Textbox(prompts.neutral(*first), label="Prompt", scale=3)
        with gr.Row():
            images = gr.Slider(1, 8, 4, step=1, label="Pictures")
            scale = gr.Slider(0, 1.5, settings.adapter_scale, step=0.05, label="Adapter scale")
            guidance = gr.Slider(0.2, 2, 1, step=0.1, label="Guidance (1: as in params.yaml)")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            kv = gr.Checkbox(
                settings.kv and studio.has_kv,
                label="KV-encoder" if studio.has_kv else "KV-encoder (this encoder has none)",
                interactive=studio.has_kv,
            )
            fast = gr.Checkbox(False, label="Few steps (LCM-LoRA)")
        with gr.Row():
            start, stop = gr.Button("Draw", variant="primary"), gr.Button("Stop", variant="stop")
        status = gr.Markdown("Choose a portrait, then Draw.")
        with gr.Row():
            galleries = [
                gr.Gallery(label=_TITLES[name], columns=2, object_fit="contain", height=330, format="png")
                for name in studio.encoders
            ]
        portrait.change(page.look, [portrait], [face, message], show_progress="hidden")
        gr.on([style.change, scene.change], prompts.neutral, [style, scene], [prompt], show_progress="hidden")
        inputs = [portrait, prompt, images, seed, scale, guidance, kv, fast]
        begun = start.click(page.begin, None, [status], queue=False, trigger_mode="multiple", show_progress="hidden")
        begun.then(page.draw, inputs, [*galleries, status], show_progress_on=[galleries[0]])
        stop.click(page.stop, None, [status], queue=False, show_progress="hidden")
    return blocks.queue(default_concurrency_limit=1)  # the one pipeline draws for one visitor at a time
