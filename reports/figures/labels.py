"""Names written on the lines they belong to, where they cover neither points nor lines nor other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from pandas import DataFrame

from pcc_bench.reports.figures.palette import Look

Points = npt.NDArray[np.float64]
Place = tuple[tuple[float, float], tuple[float, float]]  # in pixels: a point of a line, and an offset from it

DISTANCES = (5, 10, 17, 26)  # points from the mark
SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
ALONG = (1.0, 0.75, 0.5, 0.25, 0.0)  # where a level line may carry its name, in shares of the axis
FAR = 12  # points from which on a thin line leads to the mark
MARK, STROKE = 4.0, 1.5  # pixels around points and lines that stay free
STEP = 4.0  # pixels between the boxes that cover a line


@dataclass(frozen=True)
class Named:
    """A line with its name.

    Attributes:
        name: What is written; "" for a line that names must not cover and that has none.
        colour: Of the text.
        points: `[points, 2]`, in data's units, in the order they are joined; one row of (nan, y) is a level line.
    """

    name: str
    colour: str
    points: Points

    @property
    def level(self) -> bool:
        """Does it go across the whole panel?"""
        return bool(np.isnan(self.points[0, 0]))


def of_series(frame: DataFrame, x: str, looks: Mapping[str, Look]) -> list[Named]:
    """The lines of a frame with columns `method`, `value` and the one that is x; nan in that is a level line."""
    lines = []
    for name, rows in frame.groupby("method", sort=False):
        points = rows.sort_values(x)[[x, "value"]].to_numpy(dtype=float)
        lines.append(Named(str(name), looks[str(name)].colour, points))
    return lines


def write(panel: Axes, lines: Sequence[Named]) -> None:
    """Write the name of each line beside one of its points, its last one if there is room; of level lines, on them."""
    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame, point = panel.get_window_extent(), figure.dpi / 72
    panel_box = np.array([frame.x0, frame.y0, frame.x1, frame.y1])
    taken = np.array([box for line in lines for box in _covered(panel, line, panel_box)])
    for line in sorted(filter(lambda line: line.name, lines), key=lambda line: (line.level, len(line.points))):
        note = panel.annotate(line.name, (0, 0), xycoords="figure pixels", color=line.colour, annotation_clip=False)
        size = note.get_window_extent()
        places = list(_places(panel, line, panel_box, point))
        boxes = np.array([_box(place, size.width, size.height) for place in places])
        best = int(np.argmin(_costs(boxes, taken, panel_box)))
        box = boxes[best]
        note.remove()
        if not line.level and np.hypot(*places[best][1]) > FAR * point:
            _lead(panel, line, places[best], box)
        x, y = panel.transAxes.inverted().transform(box[:2])
        text = panel.text(x, y, line.name, transform=panel.transAxes, color=line.colour, va="bottom", ha="left")
        text.set_in_layout(False)  # the axes stay where they were when the places were chosen
        taken = np.vstack([taken, box])


def _lead(panel: Axes, line: Named, place: Place, box: Points) -> None:
    """A thin line from a mark to the nearest point of its name's box."""
    start = np.array(place[0])
    ends = panel.transAxes.inverted().transform([start, np.clip(start, box[:2], box[2:])])
    panel.plot(*ends.T, transform=panel.transAxes, color=line.colour, linewidth=0.5, alpha=0.8, label="_nolegend_")


def _covered(panel: Axes, line: Named, panel_box: Points) -> Iterator[Points]:
    """Boxes over a line and its marks: `[left, bottom, right, top]` in pixels."""
    if line.level:
        y = panel.transData.transform((1.0, line.points[0, 1]))[1]
        yield np.array([panel_box[0], y - STROKE, panel_box[2], y + STROKE])
        return
    places = panel.transData.transform(line.points)
    for place in places:
        yield np.concatenate([place - MARK, place + MARK])
    for start, end in pairwise(places):
        count = max(2, int(np.hypot(*(end - start)) / STEP))
        for place in start + np.linspace(0, 1, count)[:, None] * (end - start):
            yield np.concatenate([place - STROKE, place + STROKE])


def _places(panel: Axes, line: Named, panel_box: Points, point: float) -> Iterator[Place]:
    """Where a name may stand, the best first."""
    if line.level:
        y = panel.transData.transform((1.0, line.points[0, 1]))[1]
        for share in ALONG:
            for up in (1, -1):
                across = -1 if share > 0.5 else 1 if share < 0.5 else 0
                x = panel_box[0] + share * (panel_box[2] - panel_box[0])
                yield (x, y), (across * point, 3 * up * point)
        return
    for distance in DISTANCES:
        for x, y in panel.transData.transform(line.points)[::-1]:
            for across, up in SIDES:
                yield (x, y), (across * distance * point, up * distance * point)


def _box(place: Place, width: float, height: float) -> Points:
    """The box of a text at a place: beside the point, above or under it, or at a corner."""
    (x, y), (across, up) = place
    left = x + across - (width if across < 0 else 0 if across > 0 else width / 2)
    bottom = y + up - (height if up < 0 else 0 if up > 0 else height / 2)
    return np.array([left, bottom, left + width, bottom + height])


def _costs(boxes: Points, taken: Points, panel_box: Points) -> Points:
    """How bad each place is: what it covers, what of it is outside the panel, and how late it comes."""
    apart = (
        (boxes[:, None, 2] < taken[None, :, 0])
        | (boxes[:, None, 0] > taken[None, :, 2])
        | (boxes[:, None, 3] < taken[None, :, 1])
        | (boxes[:, None, 1] > taken[None, :, 3])
    )
    covered = (~apart).sum(axis=1)
    low, high = panel_box[:2] - boxes[:, :2], boxes[:, 2:] - panel_box[2:]
    outside = np.maximum(np.concatenate([low, high], axis=1), 0).max(axis=1)
    costs: Points = 100.0 * covered + 1000 * (outside > 0) + 10 * outside + np.arange(len(boxes))
    return costs
