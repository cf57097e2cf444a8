"""The page of `diffretouch evaluate` in a real Chromium."""

from diffretouch import evaluation as ev


def test_a_report_fits_a_phone_and_asks_for_nothing(folders, tmp_path, browser):
    """However long the names are, only tables scroll sideways; nothing is fetched, and no name is taken for HTML."""
    for folder in folders:
        (folder / "a.png").rename(folder / f"{'a_long_name_' * 15}<b>.png")
    name = "<script>alert(1)</script> & " + "unbroken" * 20
    methods = [ev.untouched(), ev.Method(name, name, lambda source, target, pair: (source, {}))]
    report = ev.evaluate_methods(methods, ev.pair_names(*folders), pictures=2, cost=True)
    ev.write_page(tmp_path / "page.html", ev.report_sections(report), title="unbroken" * 20)
    for width in (360, 1280):
        context = browser.new_context(viewport={"width": width, "height": 740})
        page, asked, said = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == said == []
        context.close()
