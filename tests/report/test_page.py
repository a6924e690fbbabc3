from html.parser import HTMLParser

import pytest

from lightning_poison.report import ReportTable, RunReport, Section, render_page, write_report

VOID = {"img", "link", "meta", "br", "hr", "wbr"}


class Page(HTMLParser):
    """Checks nesting, and keeps elements, links and text."""

    def __init__(self, markup):
        super().__init__()
        self.stack, self.elements, self.text = [], [], []
        self.feed(markup)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.stack:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(tmp_path, example):
    return Page(write_report(tmp_path, example()).read_text())


def test_it_loads_nothing_and_runs_nothing(page, example):
    assert page.all("script") == []
    sources = [attributes["src"] for attributes in page.all("img")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    targets = [attributes["href"] for tag in ("a", "link") for attributes in page.all(tag)]
    assert not [target for target in targets if "//" in target]
    style = render_page(example()).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_users_strings_are_text(page, nasty):
    text = "".join(page.text)
    for wanted in (f"Title {nasty}", f"Text {nasty}", f"python -m x {nasty}", f"key: {nasty}"):
        assert wanted in text
    assert f"A picture of {nasty}" in [attributes["alt"] for attributes in page.all("img")]


def test_anchors_and_labels_exist(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)
    assert {s["aria-labelledby"] for s in page.all("section")} <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))


def test_headline_numbers_and_twin(page):
    text = " ".join(page.text)
    assert "100 of 55,000 training labels were flipped; the victim fitted 93.0 % of them." in text
    assert "against PGD, linf, eps 0.1 it keeps 36.5 % (clean twin: 61.2 %)" in text
    assert "-24.7 pp" in text
    values = [a for a in page.all("p") if a.get("class") == "value"]
    assert len(values) == 4


def test_a_run_without_anything_is_a_page_too():
    page = Page(render_page(RunReport("Empty", "2024-05-06T07:08:09+00:00")))
    assert "Nothing was measured in this run." in page.text
    assert page.all("table") == []


def test_numbers_of_a_column_share_their_decimals():
    rows = (("a", 17, 9.25, 1e-5, float("nan")), ("b", 1234, 14.0, 2.0, None))
    section = Section("s", tables=(ReportTable("t", ("name", "i", "f", "tiny", "none"), rows),))
    cells = Page(render_page(RunReport("t", "now", sections=(section,)))).text
    start = cells.index("a")
    assert cells[start : start + 10] == ["a", "17", "9.25", "1e-05", "-", "b", "1,234", "14.00", "2", "-"]


def test_radii_share_an_entry_of_the_glossary(page):
    terms = [place for place, (tag, _) in enumerate(page.elements) if tag == "dt"]
    assert len(terms) == len(page.all("dd"))
    heading = len(page.text) - page.text[::-1].index("What the keys mean")
    glossary = page.text[heading:]
    assert glossary.count("Certified accuracy") == 1
    assert {"cert/acc_at_50", "cert/acc_at_100", "cert/acc_at_200"} <= set(glossary)
