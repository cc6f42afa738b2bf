"""The page in a real browser, as a person uses it. Needs Debian's package chromium; one browser for all tests."""

import base64
import io
import socket
import threading
import time

import cv2
import numpy as np
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from browsers import chromium, needs_browser
from PIL import Image
from playwright.sync_api import expect

from ipt.model import InstructIPT
from ipt.page.app import create_app
from ipt.page.jobs import Workshop
from ipt.photos.photo import read_photo
from ipt.restoring.restore import restore_image

pytestmark = [pytest.mark.slow, needs_browser]
DROP = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""

PASTE = DROP.replace('new DragEvent("drop", { dataTransfer:', 'new ClipboardEvent("paste", { clipboardData:')


@pytest.fixture(scope="module")
def model(make_config, fill_parameters):
    """Smaller still than that of the other tests: here 24 megapixels go through it."""
    return fill_parameters(InstructIPT(make_config(patch=4, blocks=(1,))), 0, 0.1).eval()


@pytest.fixture(scope="module")
def service(model, files):
    """The page's service in a thread: it understands every sentence as asking for `derain`."""
    with pytest.MonkeyPatch.context() as patch:
        probabilities = {"denoise": 0.1, "derain": 0.9, "deblur": 0.0}
        patch.setattr(InstructIPT, "read", lambda self, text: (("derain",), probabilities))
        workshop = Workshop(model, files, max_pixels=30_000_000)
        app = create_app(workshop, "tiny", max_body=50_000_000)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            workshop.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield workshop
            server.should_exit = True
            thread.join(10)
        workshop.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser, service):
    """Open the page in a tab of its own; at the end nothing may have been asked of anybody else, or gone wrong."""
    contexts, asked, complaints = [], [], []

    def open_one(width=1440, height=900, scheme="light", **more):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        context.set_default_timeout(15_000)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        context.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(service.address)
        expect(page.locator(".chips label")).to_have_count(5)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert asked
    assert [url for url in asked if not url.startswith((service.address, f"blob:{service.address}"))] == []
    # A refused picture is an answer like others; the browser notes its status all the same.
    assert [text for text in complaints if "status of 4" not in text] == []


def photograph(kind="JPEG", size=(300, 200), seed=0):
    levels = np.random.default_rng(seed).integers(0, 256, (size[1] // 20, size[0] // 20, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "a rainy day"
    buffer = io.BytesIO()
    Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def white(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height), 1).save(buffer, "PNG")
    return buffer.getvalue()


def drop(page, name, content):
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def downloaded(page, tmp_path):
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download", exact=True).click()
    path = tmp_path / "downloaded"
    caught.value.save_as(path)
    return caught.value.suggested_filename, path.read_bytes()


def test_a_rainy_picture_a_sentence_the_slider_and_the_file(open_page, model, tmp_path):
    page, image = open_page(), photograph()
    drop(page, "Grandma's café.JPG", image)
    expect(page.locator("#facts")).to_contain_text("200, JPEG")
    page.get_by_label("What is wrong with it?").fill("there is rain all over it")
    expect(page.get_by_label("My words")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.locator("#outcome-says")).to_have_text("It understood you: remove rain.")
    expect(page.locator("#bars li").first).to_have_text("rain90 %")
    expect(page.get_by_role("status")).to_contain_text("is done")
    slider = page.get_by_role("slider", name="Where the picture before ends")
    before = page.locator("#after").evaluate("image => image.style.clipPath")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert slider.input_value() == "600"
    assert slider.get_attribute("aria-valuetext") == "60 % before, the rest restored"
    assert page.locator("#after").evaluate("image => image.style.clipPath") != before
    name, content = downloaded(page, tmp_path)
    assert name == "Grandma's café.JPG"
    with Image.open(io.BytesIO(content)) as restored:
        assert restored.getexif()[0x010E] == "a rainy day"
    assert np.array_equal(read_photo(content).levels, saved_again(image, model))


def saved_again(image, model):
    """What the library makes of a JPEG, through the file that it writes."""
    from ipt.photos.photo import encode_photo

    photo = read_photo(image)
    return read_photo(encode_photo(photo, restore_image(model, photo.levels, task="derain"))).levels


def test_a_pasted_picture_and_the_slider_by_mouse_and_by_touch(open_page):
    page = open_page(has_touch=True)
    page.evaluate(PASTE, ["image.png", base64.b64encode(photograph("PNG")).decode()])
    expect(page.locator("#name")).to_have_text("image.png")
    page.get_by_role("radio", name="Rain").check()
    page.locator("#restore").click()
    expect(page.locator("#outcome-says")).to_contain_text("It removed rain")
    box = page.locator("#viewer").bounding_box()
    middle, row = box["x"] + box["width"] / 2, box["y"] + box["height"] / 3

    def cut_at():
        return page.locator("#cut").evaluate("cut => parseFloat(cut.style.left)")

    page.mouse.move(middle, row)
    page.mouse.down()
    page.mouse.move(middle + 200, row, steps=5)
    page.mouse.up()
    assert abs(cut_at() - (box["width"] / 2 + 200)) < 15
    finger = page.context.new_cdp_session(page)
    for kind, x in (("touchStart", middle + 200), ("touchMove", middle), ("touchMove", middle - 200)):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": row}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert abs(cut_at() - (box["width"] / 2 - 200)) < 15


def test_a_16_bit_tiff_is_shown_and_stays_one(open_page, model, tmp_path):
    wide = np.random.default_rng(1).integers(0, 65536, (30, 40, 3), np.uint16)
    page = open_page()
    drop(page, "scan.tif", cv2.imencode(".tif", wide)[1].tobytes())
    page.get_by_role("radio", name="Rain").check()
    expect(page.locator("#restore")).to_be_enabled()
    page.get_by_role("button", name="Restore", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#outcome-says")).to_have_text("It removed rain, as you chose.")
    expect(page.get_by_role("button", name="Download", exact=True)).to_be_focused()
    assert page.locator("#after").evaluate("async image => (await image.decode(), image.naturalWidth)") == 40
    name, content = downloaded(page, tmp_path)
    assert (name, read_photo(content).format) == ("scan.tif", "TIFF")
    assert np.array_equal(read_photo(content).levels, restore_image(model, wide[..., ::-1].copy(), task="derain"))


def test_what_is_no_picture_is_said_beside_it_and_the_others_go_on(open_page, tmp_path):
    page, files = open_page(), []
    for name, content in (
        ("half.jpg", photograph()[:900]),
        ("page.png", b"<html>"),
        ("huge.png", bytes(50_000_001)),
        ("vast.png", white(6000, 5001)),
        ("good.png", photograph("PNG")),
    ):
        files.append(tmp_path / name)
        files[-1].write_bytes(content)
    page.locator("#files").set_input_files(files)
    items = page.locator("#strip button")
    expect(items.nth(4).locator("img")).to_have_count(1)
    reasons = ("truncated", "not one of JPEG, PNG", "has 50 MB; the limit is 50 MB", "the limit is 30000000")
    for number, words in enumerate(reasons):
        items.nth(number).click()
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.locator("#restore")).to_be_disabled()
    items.nth(4).click()
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("radio", name="Noise").check()
    page.locator("#restore").click()
    expect(page.locator("#outcome-says")).to_contain_text("It removed noise")


def test_a_large_picture_with_progress_and_at_actual_size(open_page, monkeypatch):
    monkeypatch.setattr("ipt.page.progress.affordable_tile", lambda *_: 1536)  # as the default run's model gets
    page = open_page(360, 740)
    page.locator("#files").set_input_files(
        {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": photograph(size=(6000, 4000))}
    )
    expect(page.locator("#facts")).to_contain_text("24 megapixels", timeout=30_000)
    page.get_by_role("radio", name="Rain").check()
    page.locator("#restore").click()
    expect(page.locator("#work-says")).to_contain_text("Removing rain, ", timeout=30_000)
    expect(page.locator("#outcome-says")).to_contain_text("It removed rain", timeout=120_000)
    assert page.locator("#after").evaluate("async image => (await image.decode(), image.naturalWidth)") == 2560
    page.get_by_role("button", name="1:1").click()
    scroller = page.locator("#scroller")
    assert scroller.evaluate("it => [it.scrollWidth, it.scrollHeight, it.scrollLeft > 1000]") == [6000, 4000, True]
    assert page.locator("#after").evaluate("async image => (await image.decode(), image.naturalWidth)") == 6000
    scroller.evaluate("it => it.scrollTo(0, 0)")
    scroller.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # it moves smoothly, when the browser has time
        if scroller.evaluate("it => it.scrollLeft"):
            break
        page.wait_for_timeout(100)
    assert scroller.evaluate("it => it.scrollLeft") > 0
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_two_tabs_a_cancelled_picture_and_a_tab_that_is_closed(open_page, service, monkeypatch):
    held = threading.Event()

    def hold(model, levels, tasks, *, before_tile, **_):
        while not held.is_set():
            before_tile()
            time.sleep(0.01)
        return 255 - levels

    monkeypatch.setattr("ipt.page.progress.restore_tasks", hold)
    first, second = open_page(), open_page()
    pictures = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": photograph("PNG", seed=n)} for n in range(10)]
    for page, names in ((first, pictures[:2]), (second, pictures)):
        page.locator("#files").set_input_files(names)
        page.get_by_role("radio", name="Rain").check()
        expect(page.locator("#restore-all")).to_have_text(f"Restore all {len(names)}")
        page.locator("#restore-all").click()
        page.locator("#strip button").first.click()
    expect(second.locator("#work-says")).to_have_text("1 picture is before it")
    first.get_by_role("button", name="Cancel").click()  # its second picture comes after the second tab's first
    expect(second.locator("#work-says")).to_contain_text("Removing rain")
    first.close()
    until = time.monotonic() + 10
    while len(service._inside) > 1 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(service._inside) == 1
    held.set()
    expect(second.locator("#strip .state", has_text="restored")).to_have_count(10, timeout=20_000)
    expect(second.locator("#download-all")).to_have_text("Download all 10")
    assert service._inside == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")])
def test_nothing_keeps_people_from_using_it(open_page, width, scheme):
    page = open_page(width, 800, scheme)
    assert serious(page) == []
    page.locator("#files").set_input_files(
        [{"name": f"{n}.png", "mimeType": "image/png", "buffer": photograph("PNG", seed=n)} for n in range(2)]
    )
    page.get_by_label("What is wrong with it?").fill("rain")
    page.locator("#restore").click()
    expect(page.locator("#outcome-says")).to_contain_text("It understood you")
    drop(page, "broken.jpg", b"nothing")
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.locator("#strip button").first.click()
    assert serious(page) == []
    page.get_by_role("button", name="1:1").click()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def serious(page):
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
    return [
        (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]])
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
    ]
