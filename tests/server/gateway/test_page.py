"""The page behind a gateway, in a real Chromium."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_fakes import REX, digest, route, target
from gateway_kit import Behind
from page_kit import LOW_CONTRAST, PHONE, draw, drawn
from playwright.sync_api import Page, expect

from dreambooth_api.routes import KeyCheck

CANARY = "canary/demo/rex"
KEY = "correct horse"


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    behind = Behind(tmp_path)
    yield behind
    behind.end()


def test_a_subject_with_keys_asks_for_one_and_shows_how_far_it_is(
    behind: Behind, blank: Page, errors: list[str]
) -> None:
    replica = behind.do(behind.stage.replica("rex-1"))
    access = KeyCheck(keys={"me": hashlib.sha256(KEY.encode()).hexdigest()})
    routes = [route("rex", target(), access=access), route("tabby", target(number=2))]
    behind.do(behind.stage.tell(routes, {REX: [replica]}))
    blank.set_viewport_size(PHONE)
    blank.goto(f"{behind.stage.url}/demo/rex/")
    key = blank.get_by_label("API key")
    expect(key).to_be_visible()
    key.fill("wrong")
    key.press("Tab")
    expect(blank.get_by_text("The API key is not known.")).to_be_visible()
    assert blank.evaluate(LOW_CONTRAST) == []
    assert len(errors) == 2
    errors.clear()
    key.fill(KEY)
    key.press("Tab")
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    expect(key).to_be_hidden()
    assert blank.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    replica.seconds = 0.5
    draw(blank, "a photo of rex at night")
    expect(blank.locator("#working-text")).to_have_text(re.compile("Step [123] of 3"))
    drawn(blank)
    blank.get_by_text("Use it from code").click()
    assert "$API_KEY" in blank.locator("#curl").inner_text()
    assert KEY not in blank.content()
    # The tab knows the key, the browser what was drawn.
    blank.reload()
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    blank.locator("#history").get_by_role("button").click()
    drawn(blank)
    expect(blank.get_by_label("Prompt", exact=True)).to_have_value("a photo of rex at night")
    blank.get_by_role("button", name="Clear").click()
    blank.reload()
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    expect(blank.locator("#history").get_by_role("button")).to_have_count(0)
    blank.get_by_label("Subject").select_option("demo/tabby")
    expect(blank).to_have_url(f"{behind.stage.url}/demo/tabby/")


def test_a_subject_asleep_is_woken_by_its_first_picture_and_not_by_the_page(behind: Behind, blank: Page) -> None:
    behind.do(behind.stage.tell([route("rex", target())], {REX: []}))
    blank.goto(f"{behind.stage.url}/demo/rex/")
    expect(blank.get_by_text("Asleep: the first picture wakes it")).to_be_visible()
    prompt = blank.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_value("a photo of rex")
    assert blank.evaluate(LOW_CONTRAST) == []
    waiting = behind.stage.gateway.tally.waiting
    assert waiting.total() == 0
    blank.get_by_role("button", name="Draw", exact=True).click()
    while not waiting.total():
        blank.wait_for_timeout(10)
    replica = behind.do(behind.stage.replica("rex-1"))
    behind.do(behind.stage.tell([route("rex", target())], {REX: [replica]}))
    drawn(blank)
    # What suits it was left to its replica, which has told by now.
    assert not {"steps", "guidance_scale"} & replica.asked[0].keys()
    expect(blank.locator("#numbers")).to_contain_text("3 steps · guidance 4")
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    expect(blank.get_by_label("Steps")).to_have_value("8")


def test_two_revisions_stand_side_by_side(behind: Behind, blank: Page) -> None:
    replicas = [behind.do(behind.stage.replica(name)) for name in ("stable", "canary")]
    targets = [target(weight=90), target(CANARY, 2, 10)]
    behind.do(behind.stage.tell([route("rex", *targets)], {REX: replicas[:1], CANARY: replicas[1:]}))
    blank.goto(f"{behind.stage.url}/demo/rex/")
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    stable, canary = (f"rex@{digest(number)[7:19]}" for number in (1, 2))
    blank.get_by_label("Subject").select_option(stable)
    blank.get_by_label("Compare with").select_option(canary)
    draw(blank, "a photo of rex")
    left, right = drawn(blank, 2)
    assert left["pixels"] != right["pixels"]
    assert [len(replica.asked) for replica in replicas] == [1, 1]
    assert replicas[0].asked[0]["seed"] == replicas[1].asked[0]["seed"]
    names = blank.locator("img[data-result]").evaluate_all("found => found.map(img => img.dataset.result)")
    assert names == [stable, canary]
    blank.set_viewport_size(PHONE)
    assert blank.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_server_that_does_not_stream_is_asked_plainly(behind: Behind, blank: Page, errors: list[str]) -> None:
    behind.do(behind.stage.tell([route("rex", target())], {REX: [behind.do(behind.stage.replica("rex-1"))]}))
    refusal = {"error": {"message": "stream: no", "type": "invalid_request_error", "param": "stream", "code": "x"}}

    def answer(posted: Any) -> None:
        if posted.request.post_data_json.get("stream"):
            posted.fulfill(status=400, json=refusal)
        else:
            posted.continue_()

    blank.route("**/v1/images/generations", answer)
    blank.goto(f"{behind.stage.url}/demo/rex/")
    expect(blank.get_by_text("Ready", exact=True)).to_be_visible()
    draw(blank, "a photo of rex")
    drawn(blank)
    assert len(errors) == 1
    errors.clear()
