import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from diffretouch import evaluation as ev
from diffretouch.evaluation import figures, pictures, runs

from . import tiny

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def test_random_attributes_fill_their_range():
    for low, high in ((0, 1), (1, 2), (2, 3)):
        largest = figures.random_attributes(low, high, 500, 0).abs().amax(1)
        assert largest.min() > low and largest.max() <= high
        assert largest.min() < low + 0.02 and largest.max() > high - 0.02
    assert torch.equal(figures.random_attributes(1, 2, 3, 7), figures.random_attributes(1, 2, 3, 7))
    few = figures.random_attributes(1, 2, 4, 7).abs().amax(1)  # one in each quarter
    assert torch.equal(((few - 1) * 4).ceil(), torch.arange(1.0, 5))


def test_error_map():
    a = torch.full((1, 3, 2, 3), 0.5)
    b = a.clone()
    b[..., 1:] += 0.1
    b[..., 2] = 1.0
    shown = pictures.error_map(a, b)[0].mean((0, 1))
    assert shown[0] < 0.02 < shown[1] < shown[2]


class Page(HTMLParser):
    """What a page refers to, and that its tags close."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.open = [], set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href")]
        if tag == "img":
            assert dict(attributes)["alt"]

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page(experts, tmp_path):
    found = ev.expert_pairs(*experts)[1:4]
    strange = found[0].source.with_name("<b>&.png")
    strange.write_bytes(found[0].source.read_bytes())
    pipe = tiny.one_step_pipeline()
    report = ev.evaluate_pairs(pipe, [found[0]._replace(source=strange), *found[1:]], pictures=2)
    run = ev.controllability(pipe, PHOTOS[:2], values=3, samples=2, size=32)
    sliders = {"controllability": {"tiny": run}, "step_table": ev.step_table(
        {"tiny": pipe}, PHOTOS[:1], (1, 2), values=3, samples=2, size=32)}  # fmt: skip
    sections = [
        *ev.report_sections(report),
        *ev.controllability_sections(sliders, ev.slider_sheets(pipe, PHOTOS[:1], cell=24)),
        figures.attributes_figure(pipe, PHOTOS[:1], columns=2),
        figures.models_figure({"x": pipe, "y": pipe}, found[:1]),
        figures.experts_figure(pipe, found),
    ]
    ev.write_page(tmp_path / "page.html", sections)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe"} and not re.search(r"https?://|url\(", text)
    assert text.count("<h3>&lt;b&gt;&amp;.png expertA</h3>") == 1 and "<b>&.png" not in text
    assert text.count('<svg class="histogram"') == 2 * 4 and text.count('<svg class="curves"') == 4
    assert text.count('<span class="oracle">') == 6 + 2  # "matched" in six tables and at two photos
    assert text.count(f"sha256 {runs.model_digest(pipe)[:16]}") >= 5  # in both reports and all figures
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace("finance", "")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    shown = ev.without_pictures(report)
    assert "picture" not in json.dumps(shown) and "picture" in json.dumps(report)
    with pytest.raises(ValueError, match="two models or more"):
        figures.models_figure({"x": pipe}, found[:1])


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        ev.write_page(tmp_path / "page.html", [("x", "y")])
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"] and (tmp_path / "page.html").read_text() == "old"
