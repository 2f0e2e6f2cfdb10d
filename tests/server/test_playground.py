"""The page in a real Chromium against a real server."""

import socket
import threading
import time

import pytest
import uvicorn
from page_kit import DESKTOP, LOW_CONTRAST, PHONE, draw, drawn
from playwright.sync_api import Page, Route, ViewportSize, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from dreambooth_server.app import create_app
from dreambooth_server.service import Service


@pytest.fixture
def page(blank: Page, endpoint: str) -> Page:
    """The open playground."""
    blank.goto(endpoint)
    return blank


def test_what_arrives_from_the_server_leaves_the_field_that_is_being_written_in(blank: Page, endpoint: str) -> None:
    held: list[Route] = []
    blank.route("**/v1/models", lambda route: held.append(route))
    blank.goto(endpoint)
    prompt = blank.get_by_label("Prompt", exact=True)
    prompt.focus()
    while not held:
        blank.wait_for_timeout(10)
    held.pop().continue_()
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    blank.keyboard.insert_text("a photo of rusty")
    expect(prompt).to_have_value("a photo of rusty")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_prompt_becomes_a_picture(page: Page, viewport: ViewportSize) -> None:
    page.set_viewport_size(viewport)
    draw(page, "a photo of rusty on the beach")
    drawn(page)
    expect(page.get_by_text("The model read: a photo of sks robot on the beach")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    picture = page.locator("img[data-result]")
    assert picture.evaluate("img => getComputedStyle(img).imageRendering") == "pixelated"
    box = picture.bounding_box()
    assert box is not None
    assert box["width"] > 250
    if viewport == PHONE:
        expect(picture).to_be_in_viewport()


def test_what_is_typed_while_the_page_loads_stays(blank: Page, endpoint: str) -> None:
    held: list[Route] = []
    blank.route("**/v1/models", lambda route: held.append(route))
    with blank.expect_request("**/v1/models"):
        blank.goto(endpoint)
    blank.get_by_label("Prompt", exact=True).fill("rusty, typed early")
    expect(blank.get_by_role("button", name="Draw", exact=True)).to_be_disabled()
    held[0].continue_()
    expect(blank.get_by_role("button", name="Draw", exact=True)).to_be_enabled()
    expect(blank.get_by_label("Prompt", exact=True)).to_have_value("rusty, typed early")
    expect(blank.get_by_label("Steps")).to_have_value("8")


def test_compare_shows_subject_and_base(page: Page) -> None:
    page.get_by_label("Compare with").select_option("base")
    draw(page, "a photo of rusty at night")
    subject, base = drawn(page, 2)
    assert subject["pixels"] != base["pixels"]
    assert subject["dreambooth:seed"] == base["dreambooth:seed"]
    names = page.locator("img[data-result]").evaluate_all("found => found.map(img => img.dataset.result)")
    assert names == ["rusty", "base"]


def test_a_kept_seed_draws_the_same_and_the_history_brings_it_back(page: Page) -> None:
    draw(page, "a photo of rusty on grass")
    first = drawn(page)
    page.get_by_role("button", name="Keep this seed").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(first[0]["dreambooth:seed"])
    draw(page, "a photo of rusty on grass")
    assert drawn(page) == first
    page.get_by_label("Seed", exact=True).fill("12")
    draw(page, "a photo of rusty in the snow")
    assert drawn(page) != first
    past = page.locator("#history").get_by_role("button")
    expect(past).to_have_count(3)
    past.nth(2).click()
    assert drawn(page) == first
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a photo of rusty on grass")


def test_it_is_used_by_keyboard_and_shows_code(page: Page) -> None:
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_enabled()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("it's rusty")
    page.get_by_label("Negative prompt").fill("snow")
    page.get_by_label("Guidance").fill("3")
    page.keyboard.press("Control+Enter")
    drawn(page)
    page.get_by_text("Use it from code").click()
    curl = page.locator("#curl").inner_text()
    assert "/v1/images/generations" in curl
    assert "it'\\''s rusty" in curl
    assert '"negative_prompt":"snow"' in curl
    compile(page.locator("#python").inner_text(), "snippet", "exec")


def test_a_refusal_is_shown_and_the_page_goes_on(page: Page, errors: list[str]) -> None:
    draw(page, "   ")
    expect(page.get_by_role("alert")).to_have_text("prompt: must not be empty")
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_enabled()
    assert len(errors) == 1
    errors.clear()
    draw(page, "rusty")
    drawn(page)
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_controls_have_names(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    draw(page, "a cat")
    drawn(page)
    page.get_by_text("Use it from code").click()
    page.mouse.move(0, 0)
    assert page.evaluate(LOW_CONTRAST) == []
    unnamed = page.eval_on_selector_all(
        "input, select, textarea, button, a, progress",
        "found => found.filter(e => !e.textContent.trim() && !e.labels?.length && !e.ariaLabel).map(e => e.outerHTML)",
    )
    assert unnamed == []


def test_it_works_under_a_path_prefix(blank: Page, service: Service) -> None:
    app = Starlette(routes=[Mount("/demo/rusty", create_app(service))])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        serving.start()
        while not server.started:
            time.sleep(0.02)
        blank.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/demo/rusty/")
        expect(blank.get_by_label("Subject")).to_be_visible()
        blank.get_by_label("Subject").select_option("tabby")
        draw(blank, "a photo of tabby on grass")
        drawn(blank)
        expect(blank.get_by_text("The model read: a photo of ohwx cat on grass")).to_be_visible()
        server.should_exit = True
        serving.join(10)
