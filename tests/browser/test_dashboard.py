"""The dashboard as people see it: a real server, a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from emulator.core import MILLISECOND
from emulator.ledger import Ledger
from tests.billing.rows import row, throttled
from tests.browser.conftest import Watched
from tests.load import REALTIME, SERVERLESS
from tests.servers import LIGHT, Server, serving

HOUR = 3600 * 10**9
HOSTILE = "<script>document.title='owned'</script><b>x"
CHARTS = 5


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on whose ledger there are fifty endpoints, all but two of them deleted, one with a
    name that only another program can have written."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "state").mkdir()
    ledger = Ledger.open(folder / "state" / "ledger.sqlite")
    now = 1_790_000_000 * 10**9
    rows = [
        row(
            endpoint=f"gone-{number:02d}", at_ns=now - number * HOUR, environment=f"e{number}",
            model_ns=(20 + number) * MILLISECOND, cold_start=number % 7 == 0,
            load_ns=900 * MILLISECOND if number % 7 == 0 else 0, memory_mb=2048,
        )
        for number in range(47)
    ]  # fmt: skip
    rows += [row(endpoint=HOSTILE, at_ns=now), throttled(endpoint="gone-00", at_ns=now)]
    ledger.append(rows)
    ledger.put_meta("virtual-now", str(now + HOUR))
    ledger.close()
    with serving(folder, EMULATOR_CLOCK="virtual", **LIGHT) as running:
        yield running


def shown(watched: Watched, server: Server, query: str = "") -> Watched:
    """The page, once its figures are drawn."""
    watched.page.goto(f"{server.url}/billing{query}")
    expect(watched.page.locator("#figure-costs .main-svg").first).to_be_visible()
    return watched


def amount(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def test_nothing_was_called_yet(server: Server, watched: Watched) -> None:
    shown(watched, server)
    assert "This month, projected" in watched.page.inner_text("#now")
    for number in range(CHARTS):
        figure = watched.page.locator("figure[data-chart]").nth(number)
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".main-svg").first).to_be_visible()
    watched.keep("first")
    assert watched.said == []


def test_its_sums_are_those_of_the_json_and_of_their_own_arithmetic(
    used: Server, watched: Watched
) -> None:
    page = shown(watched, used).page
    bill = used.client.get("/billing", headers={"accept": "application/json"}).json()
    assert abs(amount(page.inner_text("#total")) - Decimal(bill["total"])) < Decimal("1e-8")
    assert page.locator("#bill article").count() == len(bill["endpoints"])
    month = page.locator("#month")
    month.locator("summary").click()
    lines = month.locator("li code").all_inner_texts()
    assert len(lines) > 50
    total = Decimal(0)
    for line in lines:
        quantity, price, result = re.fullmatch(r"(\S+) \w+ x (\S+) = (\S+)", line).groups()  # type: ignore[union-attr]
        assert abs(amount(quantity) * Decimal(price) - Decimal(result)) < Decimal("1e-14")
        total += Decimal(result)
    told = amount(month.locator(".amount").inner_text())
    assert abs(total - told) < Decimal("1e-8")


def test_pickers_live_in_the_address(used: Server, watched: Watched) -> None:
    page = shown(watched, used).page
    page.select_option("[name=endpoint]", "gone-07")
    expect(page.locator("#bill article")).to_have_count(1)
    assert page.url.endswith("/billing?endpoint=gone-07")
    page.select_option("[name=range]", "1h")
    expect(page.locator("#bill h2")).to_have_text("The bill: 1 hour")
    assert page.url.endswith("/billing?range=1h&endpoint=gone-07")
    page.reload()
    expect(page.locator("#bill h2")).to_have_text("The bill: 1 hour")
    assert page.input_value("[name=range]") == "1h"
    page.go_back()
    expect(page.locator("#bill h2")).to_have_text("The bill: everything")
    assert page.input_value("[name=range]") == ""
    assert watched.said == []


def test_an_invocation_is_seen_without_a_reload_where_the_reader_is(
    used: Server, watched: Watched
) -> None:
    page = shown(watched, used, f"?endpoint={SERVERLESS}").page
    page.locator("#today summary").click()
    page.evaluate("document.documentElement.dataset.kept = 'yes'; scrollTo(0, 300)")
    place = page.evaluate("scrollY")
    before = len(used.rows(SERVERLESS))
    assert used.invoke(SERVERLESS).status_code == 200
    expect(page.locator("#bill .facts")).to_contain_text(f"{before + 1:,} invocation")
    expect(page.locator("#figure-requests .text")).to_contain_text(f"{before + 1} requests")
    assert page.evaluate("document.documentElement.dataset.kept") == "yes"
    assert page.evaluate("document.getElementById('today').open")
    assert page.evaluate("scrollY") == place
    assert watched.said == []


def test_names_are_text(used: Server, watched: Watched) -> None:
    page = shown(watched, used).page
    assert page.title() == "Lukewarm: what it costs"
    assert page.locator("#bill h3", has_text="<script>").inner_text() == HOSTILE
    assert page.locator("main script, #bill b").count() == 0
    shown(watched, used, f"?endpoint={HOSTILE.replace('<', '%3C').replace('>', '%3E')}")
    assert page.locator("[name=endpoint] option:checked").inner_text() == HOSTILE
    assert page.title() == "Lukewarm: what it costs"
    assert watched.said == []
    assert watched.hosts == {f"127.0.0.1:{used.port}"}


def test_what_the_page_may_do_is_little(used: Server) -> None:
    headers = used.client.get("/billing", headers={"accept": "text/html"}).headers
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]


NARROW = {"viewport": {"width": 400, "height": 900}}


@pytest.mark.parametrize(
    "watched",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, NARROW],
    ids=["light", "dark", "narrow"],
    indirect=True,
)
def test_everybody_can_read_it(
    used: Server, watched: Watched, request: pytest.FixtureRequest
) -> None:
    page = shown(watched, used).page
    page.locator("#month summary").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    assert watched.keep(request.node.callspec.id).stat().st_size > 10_000


def test_it_works_by_keyboard(used: Server, watched: Watched) -> None:
    page = shown(watched, used).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for name in ("range", "endpoint"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('today').open")


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_figure_can_be_taken_along(
    used: Server, watched: Watched, kind: str, tmp_path: Path
) -> None:
    page = shown(watched, used).page
    with page.expect_download() as coming:
        page.get_by_role("button", name=f"Save Cost over time as {kind.upper()}").click()
    coming.value.save_as(tmp_path / f"figure.{kind}")
    content = (tmp_path / f"figure.{kind}").read_bytes()
    assert coming.value.suggested_filename == f"costs.{kind}"
    assert content.startswith(b"\x89PNG" if kind == "png" else b"<svg")


def test_without_a_script_it_is_a_page_to_be_read(used: Server, browser: object) -> None:
    text = used.client.get(f"/billing?endpoint={REALTIME}", headers={"accept": "text/html"}).text
    assert text.count("<article>") == 1
    assert '<form id="controls" method="get" action="/billing">' in text


def test_an_open_page_does_not_keep_the_server(tmp_path: Path, watched: Watched) -> None:
    with serving(tmp_path, EMULATOR_CLOCK="virtual", EMULATOR_GRACE_S="600", **LIGHT) as own:
        shown(watched, own)
        own.stop()  # which fails if it takes a minute
        expect(watched.page.locator("#live")).to_have_text(
            "The server does not answer; trying again."
        )
