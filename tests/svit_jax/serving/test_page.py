"""The web page in a headless Chromium, beside a real server that says what the test wants."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from served import ScriptedEngine, serving, wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium here (Debian: apt install chromium)", allow_module_level=True)

SAID = "A circle at [0.25, 0.40, 0.55, 0.60], a square at [0.6, 0.3, 0.9, 0.5]; not [3, 4, 5, 6]."
SIZES = {"desktop": {"width": 1200, "height": 760}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser():
    # With Chromium's own stand-in for a camera.
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield found
        found.close()


@pytest.fixture
def engine(tiny_assistant):
    return ScriptedEngine(tiny_assistant.tokenizer.encode(SAID), max_length=2000)


@pytest.fixture
def url(tiny_assistant, engine):
    with serving(tiny_assistant, engine) as found:
        yield found.url


@pytest.fixture(params=SIZES)
def page(browser, url, request):
    """The page at each size; an error in its scripts, or one of its policy's, fails the test."""
    opened = browser.new_page(viewport=SIZES[request.param])
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    opened.goto(url)
    playwright.expect(opened.locator("#model")).not_to_be_empty()
    yield opened
    opened.close()
    assert troubles == []


@pytest.fixture
def shapes(tmp_path) -> str:
    """A picture of 800 x 500: on its square of 800, 150 lie above it."""
    file = tmp_path / "shapes.png"
    picture = Image.new("RGB", (800, 500), "#dde")
    picture.paste("red", (200, 170, 440, 330))
    picture.paste("blue", (480, 90, 720, 250))
    picture.save(file)
    return str(file)


def show(page, file: str) -> None:
    page.set_input_files("#file", file)
    page.wait_for_selector("#frame:visible")
    page.wait_for_selector("#send:enabled")


def ask(page, question: str, by: str = "Enter") -> None:
    page.wait_for_selector("#send:enabled")
    page.fill("#question", question)
    page.press("#question", by)
    page.wait_for_selector(".assistant:not(.waiting)")
    page.wait_for_selector("#send:enabled")


def drawn(page) -> list[dict[str, float]]:
    names = ("x", "y", "width", "height")
    return [
        {name: pytest.approx(float(rect.get_attribute(name)), abs=1e-6) for name in names}
        for rect in page.locator("#boxes rect").all()
    ]


def test_an_answer_streams_and_its_boxes_are_drawn(page, engine, shapes):
    show(page, shapes)
    ask(page, "Where?")
    assert page.locator(".assistant").inner_text() == SAID
    assert drawn(page) == [
        {"x": 200, "y": 0.4 * 800 - 150, "width": 240, "height": 160},
        {"x": 480, "y": 0.3 * 800 - 150, "width": 240, "height": 160},
    ]
    place = page.locator(".place").first
    assert place.inner_text() == "[0.25, 0.40, 0.55, 0.60]"
    place.focus()
    assert "lit" in page.locator("#boxes rect").first.get_attribute("class")
    size = page.viewport_size
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    if folder := os.environ.get("SCREENSHOTS"):  # docs/screenshots is made so
        name = "desktop" if size["width"] > 800 else "phone"
        page.screenshot(path=Path(folder) / f"page_{name}.png")
    assert len(engine.tickets[0].prompt.images) == 1


def test_a_second_question_carries_the_first_with_its_picture(page, engine, shapes):
    show(page, shapes)
    ask(page, "Where?")
    ask(page, "And the square?")
    first, second = engine.tickets
    assert len(second.prompt.tokens) > len(first.prompt.tokens) + len(engine.tokens)
    assert len(second.prompt.images) == 1
    page.click("#again")
    assert page.locator(".turn").count() == page.locator("#boxes rect").count() == 0
    ask(page, "Where?")
    assert engine.tickets[2].prompt.tokens.tolist() == first.prompt.tokens.tolist()
    page.click("#remove")
    ask(page, "Who are you?")
    assert len(engine.tickets[3].prompt.images) == 0


def test_settings_reach_the_engine(page, engine):
    page.click("summary")
    for name, value in (
        ("temperature", "0.7"),
        ("top_p", "0.9"),
        ("max_tokens", "3"),
        ("seed", "5"),
    ):
        page.fill(f"#{name}", value)
    ask(page, "Who are you?")
    ticket = engine.tickets[0]
    sampling = ticket.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.7, 0.9, 5)
    assert ticket.max_new_tokens == 3


def test_it_works_by_keyboard_alone(page, engine):
    """From the page's start: the examples are reached by Tab, and one is asked by Enter."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Describe the picture in detail.":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".assistant:not(.waiting)")
    assert page.locator(".user").inner_text() == "Describe the picture in detail."
    page.wait_for_selector("#send:enabled")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.input_value("#question") == "one\ntwo"
    page.keyboard.press("Enter")
    playwright.expect(page.locator(".assistant:not(.waiting)")).to_have_count(2)


def test_an_answer_is_stopped_and_the_engine_with_it(page, engine):
    engine.go.clear()
    page.fill("#question", "Who are you?")
    page.press("#question", "Enter")
    page.wait_for_selector("#stop:visible")
    wait_until(lambda: engine.tickets)
    page.keyboard.press("Escape")
    page.wait_for_selector("#send:enabled")
    wait_until(lambda: engine.tickets[0].cancelled)
    engine.go.set()


def put(page, event: str, file: str) -> None:
    """A picture dropped or pasted as a browser would: by an event with a file."""
    data = list(Path(file).read_bytes())
    page.evaluate(
        """([event, data]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], "a.png", {type: "image/png"}));
          const made = event === "drop"
            ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
          document.body.dispatchEvent(made);
        }""",
        [event, data],
    )


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(page, engine, shapes, event):
    put(page, event, shapes)
    page.wait_for_selector("#frame:visible")
    ask(page, "Where?")
    assert len(engine.tickets[0].prompt.images) == 1


def test_a_large_picture_is_made_smaller_before_it_travels(page, engine, tmp_path):
    Image.new("RGB", (4000, 1000), "green").save(tmp_path / "large.png")
    sent: list[dict] = []
    page.on("request", lambda r: sent.append(json.loads(r.post_data)) if r.post_data else None)
    show(page, str(tmp_path / "large.png"))
    shown = page.locator("#picture")
    assert shown.evaluate("p => [p.naturalWidth, p.naturalHeight]") == [1344, 336]
    ask(page, "Where?")
    part = sent[0]["messages"][0]["content"][0]
    assert part["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_what_goes_wrong_is_said(browser, url, engine, tmp_path):
    page = browser.new_page()
    page.goto(url)
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.set_input_files("#file", str(tmp_path / "no.png"))
    said = page.locator("#problem")
    playwright.expect(said).to_contain_text("can't be read")
    engine.full = True
    page.fill("#question", "Who are you?")
    page.press("#question", "Enter")
    playwright.expect(said).to_contain_text("Try again in")
    assert page.locator(".assistant").count() == 0
    engine.full = False
    ask(page, "Who are you?")
    playwright.expect(said).to_be_empty()
    page.close()


def test_the_camera_gives_a_picture(page, engine):
    page.click("#camera")
    wait_until(lambda: page.locator("#video").evaluate("video => video.videoWidth") > 0)
    page.click("#shoot")
    page.wait_for_selector("#frame:visible")
    assert page.locator("#video").is_hidden()
    ask(page, "What is this?")
    assert len(engine.tickets[0].prompt.images) == 1


def test_one_of_several_models_is_chosen(browser, named, engine):
    with serving(named, engine) as served:
        page = browser.new_page(viewport=SIZES["phone"])
        page.goto(served.url)
        choice = page.get_by_label("Model")
        assert choice.locator("option").all_inner_texts() == ["tiny", "cats", "dogs"]
        assert choice.input_value() == "tiny" and page.locator("#model").is_hidden()
        ask(page, "Who are you?")
        choice.select_option("dogs")
        ask(page, "And you?")
        # A new key asks for the names anew, and leaves the choice.
        page.locator("summary").click()
        page.fill("#key", "none")
        page.press("#key", "Tab")
        ask(page, "Still?")
        assert choice.input_value() == "dogs"
        assert [ticket.prompt.adapter for ticket in engine.tickets] == [0, 2, 2]
        wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        assert not wide
        page.close()
