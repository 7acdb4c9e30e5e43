"""Attribution maps: each image, then what each model looked at in it."""

from __future__ import annotations

import numpy as np

from rightly.report.blocks import Gallery, Picture, Section
from rightly.report.charts import lettering, svg
from rightly.report.charts.picture import outline, picture, shade, span_of, tint
from rightly.report.cleaning import Record
from rightly.report.palette import MUTED, Floats, css, diverging
from rightly.report.runs import runs_of, title_of

_CAPTION = "What each model looked at."
_NOTE = (
    "Vermilion: the pixel spoke for the model's answer. Blue: it spoke against it. White: it did not matter. "
    "The maps of one image share one scale; the strongest 1% of pixels are in full colour."
)
_OUTLINE = "The dashed outline is the region that a person marked."


def maps(record: Record, figures: Record) -> Section | None:
    """A row of pictures per example."""
    examples = figures.get("maps") or []
    if not examples:
        return None
    marked = any(example.get("annotation") is not None for example in examples)
    note = f"{_NOTE} {_OUTLINE}" if marked else _NOTE
    rows = [(str(example.get("title") or ""), _row(record, example)) for example in examples]
    return Section("maps", "Where the models look", [Gallery(_CAPTION, note, rows, legend())])


def _row(record: Record, example: Record) -> list[Picture]:
    image = np.asarray(example["image"], dtype=float)
    size = (image.shape[0], image.shape[1])
    annotation = example.get("annotation")
    border = "" if annotation is None else outline(np.asarray(annotation, dtype=float))
    names = [run.name for run in runs_of(record) if run.name in example["runs"]]
    names += sorted(set(example["runs"]) - set(names))
    arrays: dict[str, Floats] = {name: np.asarray(example["runs"][name]["map"], dtype=float) for name in names}
    span = span_of(list(arrays.values()))
    label = example.get("label")
    told = "" if label is None else f"True: {label}"
    row = [Picture(picture("Image", told or "The image", shade(image), size, border), "Image", told)]
    for name in names:
        run, title = example["runs"][name], title_of(name, record["runs"].get(name))
        predicted = "" if run.get("prediction") is None else f"says {run['prediction']}"
        drawn = picture(title, f"Attribution map. {predicted}", tint(arrays[name], span), size, border)
        row.append(Picture(drawn, title, predicted, run.get("correct")))
    return row


def legend() -> str:
    """The colour bar of the maps."""
    steps, left, wide, width = 41, 58.0, 140.0, 256.0
    blocks = [
        svg.element(
            "rect",
            x=left + wide * step / steps,
            y=2,
            width=wide / steps + 0.3,
            height=11,
            fill=css(diverging(np.array(2 * step / (steps - 1) - 1))),
        )
        for step in range(steps)
    ]
    frame = svg.element("rect", x=left, y=2, width=wide, height=11, fill="none", stroke="#b5b5b5")
    ends = svg.text(left - 7, 11.5, "against", size=lettering.SMALL, anchor="end", fill=MUTED)
    ends += svg.text(left + wide + 7, 11.5, "for", size=lettering.SMALL, fill=MUTED)
    return svg.document(
        width, 16, "Colours of the maps", "Blue against, white none, vermilion for", "".join(blocks) + frame + ends
    )
