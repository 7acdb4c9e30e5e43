"""Is a page whole, readable and self-contained? Each check returns what is wrong; the tests plant defects in them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from rightly.report.charts.lettering import width_of

VOID = {"meta", "link", "br", "hr", "img", "input"}

#: SVG elements that may stand alone, ``<path/>``; in HTML proper that syntax means nothing
SVG = {"svg", "g", "path", "line", "rect", "circle", "text", "title", "desc", "image"}

#: attributes by which a page fetches something
FETCHING = {"src", "href", "xlink:href", "srcset", "action", "poster", "data", "background", "formaction"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attributes)
        if tag not in VOID | SVG:
            self.wrong.append(f"<{tag}/> is not closed in HTML")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing at {self.getpos()}")

    def _attributes(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        if len(set(names)) < len(names):
            self.wrong.append(f"<{tag}> repeats an attribute")
        for name, value in attributes:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            if name.startswith("on"):
                self.wrong.append(f"<{tag} {name}=...> is an inline handler")
            if name in FETCHING:
                self._reference(tag, name, value)

    def _reference(self, tag: str, name: str, value: str) -> None:
        if value.startswith("#"):
            self.anchors.append(value[1:])
        elif tag == "a" and re.match(r"https?://", value):
            return  # a citation that a reader may follow; nothing is fetched by showing the page
        elif not value.startswith("data:image/png;base64,"):
            self.wrong.append(f"<{tag} {name}> refers to {value[:60]}")


def problems(page: str) -> list[str]:
    """What is wrong with a page: structure, references to the outside, pictures that are not XML, bad numbers."""
    parser = _Page()
    parser.feed(page)
    parser.close()
    found = parser.wrong + [f"<{tag}> is never closed" for tag in parser.open]
    found += [f"id {name} twice" for name in sorted({i for i in parser.ids if parser.ids.count(i) > 1})]
    found += [f"#{anchor} leads nowhere" for anchor in parser.anchors if anchor not in parser.ids]
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    found += [f"the style fetches: {word}" for word in ("url(", "@import", "http") if word in styles]
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    return found + [wrong for picture in pictures for wrong in svg_problems(picture)]


def svg_problems(picture: str) -> list[str]:
    """What is wrong with one SVG: not XML, no view box, no title, or a number that is none."""
    try:
        root = ElementTree.fromstring(picture)
    except ElementTree.ParseError as error:
        return [f"not XML: {error} in {picture[:80]}"]
    found = [] if "viewBox" in root.attrib else ["no viewBox"]
    if root.get("role") == "img":
        kinds = [child.tag.rpartition("}")[2] for child in list(root)[:2]]
        found += [] if kinds == ["title", "desc"] else ["no title and description"]
    drawn = {"d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "viewBox", "transform"}
    for node in root.iter():
        for name in drawn & set(node.attrib):
            if re.search(r"nan|inf|none", node.attrib[name], re.I):
                found.append(f"{node.tag} {name}={node.attrib[name][:40]}")
    return found


def reaches(picture: str) -> tuple[float, float, float, float]:
    """The least and greatest x and y of the lines, circles, paths and texts of an SVG, to see them inside."""
    xs: list[float] = []
    ys: list[float] = []
    for node in ElementTree.fromstring(picture).iter():
        if node.tag.endswith("}text"):
            x, wide = float(node.attrib["x"]), width_of(node.text or "", float(node.attrib["font-size"]))
            left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[node.get("text-anchor", "start")]
            xs += [left, left + wide]
        for name, value in node.attrib.items():
            if name in {"x1", "x2", "cx"}:
                xs.append(float(value))
            elif name in {"y1", "y2", "cy"}:
                ys.append(float(value))
            elif name == "d":
                for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", value):
                    xs.append(float(x))
                    ys.append(float(y))
    return min(xs), max(xs), min(ys), max(ys)
