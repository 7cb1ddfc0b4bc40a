from collections import Counter

from lookahead.config import Generate
from lookahead.dataset.plan import plan_pictures
from lookahead.dataset.prompts import read_prompts


def test_every_person_gets_photos_and_styles_and_a_neutral_prompt(settings: Generate) -> None:
    pictures = plan_pictures(read_prompts(settings.prompts), settings)
    assert [p.index for p in pictures] == list(range(15))
    for identity in range(3):
        own = [p for p in pictures if p.identity == identity]
        assert Counter(p.style for p in own) == {"photo": 3, "pencil": 1, "oil": 1}
        assert all(p.name in p.prompt and p.name not in p.neutral_prompt for p in own)
        assert all("a person" in p.neutral_prompt for p in own)


def test_seeds_differ_and_more_people_leave_the_first_ones_alone(settings: Generate) -> None:
    prompts = read_prompts(settings.prompts)
    few = plan_pictures(prompts, settings)
    many = plan_pictures(prompts, settings.model_copy(update={"people": 12}))
    assert many[: len(few)] == few
    assert len({p.seed for p in many}) == len(many)


def test_another_seed_plans_other_pictures(settings: Generate) -> None:
    prompts = read_prompts(settings.prompts)
    other = plan_pictures(prompts, settings.model_copy(update={"seed": 1}))
    assert {p.seed for p in other}.isdisjoint(p.seed for p in plan_pictures(prompts, settings))
