"""Word problems of one to three steps, in GSM8K's row format."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from pcc_bench.tasks.lab.draws import integer, pick
from pcc_bench.tasks.lab.words import THINGS
from pcc_bench.tasks.lab.world import Person, draw_names, draw_person

_MORE = ("{She} buys {n} {things}.", "Then {she} finds {n} {things}.", "{friend} gives {her} {n} {things}.")
_LESS = ("{She} sells {n} {things}.", "Then {she} loses {n} {things}.", "{She} gives {n} {things} to {friend}.")


class _Problem(NamedTuple):
    """A problem on its way: what it says, the steps of its answer, the words to fill in."""

    told: list[str]
    steps: list[str]
    words: dict[str, str]


def draw_problem(random: Random, *, split: str = "train") -> dict[str, str]:
    """A row {"question", "answer"}; the answer has a line a step and ends in "#### " and the number."""
    person, friend = (draw_person(random, name) for name in draw_names(random, split, 2))
    problem = _Problem([], [], _fill(person, friend, pick(random, THINGS)))
    steps = integer(random, 1, 3)
    in_boxes = random.random() < 0.4
    count = _begin(random, problem, in_boxes=in_boxes)
    left = steps - in_boxes
    at_end = left > 0 and random.random() < 0.4
    for _ in range(left - at_end):
        count = _change(random, problem, count)
    result, question = _end(random, problem, count) if at_end else (count, "How many {things} does {she} have now?")
    text = " ".join([*problem.told, question]).format_map(problem.words)
    answer = "\n".join([*problem.steps, f"#### {result}"]).format_map(problem.words)
    return {"question": text, "answer": answer}


def _fill(person: Person, friend: Person, things: str) -> dict[str, str]:
    she, her = ("she", "her") if person.gender == "f" else ("he", "him")
    names = {"name": person.name, "friend": friend.name, "things": things}
    return names | {"she": she, "She": she.capitalize(), "her": her}


def _begin(random: Random, problem: _Problem, *, in_boxes: bool) -> int:
    if not in_boxes:
        count = integer(random, 4, 60)
        problem.told.append(f"{{name}} has {count} {{things}}.")
        return count
    boxes, each = integer(random, 2, 9), integer(random, 2, 9)
    problem.told.append(f"{{name}} has {boxes} boxes with {each} {{things}} in each.")
    problem.steps.append(f"In the boxes there are {boxes} * {each} = {boxes * each} {{things}}.")
    return boxes * each


def _change(random: Random, problem: _Problem, count: int) -> int:
    """Some more, or some less; at least 2 stay, so that the plural is right."""
    less = count >= 4 and random.random() < 0.5
    number = integer(random, 2, count - 2 if less else 20)
    problem.told.append(pick(random, _LESS if less else _MORE).replace("{n}", str(number)))
    result = count - number if less else count + number
    problem.steps.append(f"Then {{she}} has {count} {'-' if less else '+'} {number} = {result} {{things}}.")
    return result


def _end(random: Random, problem: _Problem, count: int) -> tuple[int, str]:
    """A last step that asks for another number: dollars, a share, or what the friend has."""
    shares = [boxes for boxes in range(2, 10) if count % boxes == 0 and count > boxes]
    draw = random.random()
    if draw < 0.35 and shares:
        boxes = pick(random, shares)
        problem.told.append(f"{{She}} puts them in {boxes} boxes, the same number in each.")
        problem.steps.append(f"In each box there are {count} / {boxes} = {count // boxes} {{things}}.")
        return count // boxes, "How many {things} are in each box?"
    if draw < 0.7:
        price = integer(random, 2, 9)
        problem.told.append(f"{{She}} sells all of them for {price} dollars each.")
        problem.steps.append(f"{{She}} gets {count} * {price} = {count * price} dollars.")
        return count * price, "How many dollars does {she} get?"
    problem.told.append("{friend} has twice as many {things} as {name} has now.")
    problem.steps.append(f"{{friend}} has {count} * 2 = {count * 2} {{things}}.")
    return count * 2, "How many {things} does {friend} have?"
