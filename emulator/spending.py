"""Cost Explorer and the Pricing API, as far as the bill and the price tables answer them: AWS JSON
1.1 in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache

from emulator import explorer, offering, service
from emulator.address import Addressing, Home
from emulator.asgi import Receive, Scope, Send, take_in
from emulator.billpages import overview
from emulator.constraints import checked
from emulator.control import Params, parsed, refuse, respond
from emulator.core import SECOND
from emulator.errors import LukewarmError, RequestTooLarge
from emulator.hosting import Hosting
from emulator.terms import Terms

LARGEST = 1 << 20  # bytes of a request
Handler = Callable[[Hosting, Home, Params], Awaitable[Params]]


async def _cost_and_usage(hosting: Hosting, home: Home, params: Params) -> Params:
    start, end = explorer.period(params)
    looked = overview(hosting)
    first = int(start.timestamp()) * SECOND
    currency = hosting.tables.known(home.region).latest.currency
    if first > looked.now:
        return explorer.cost_and_usage(params, (), currency)
    terms = Terms(from_ns=first, to_ns=int(end.timestamp()) * SECOND,
                  include_startup=hosting.config.bill_startup)  # fmt: skip
    days = await asyncio.to_thread(looked.days, terms)
    own = [one for one in days if one.resource.account == home.account]
    return explorer.cost_and_usage(params, own, currency)


async def _products(hosting: Hosting, home: Home, params: Params) -> Params:
    return offering.products(params, hosting.tables)


OPERATIONS: Mapping[str, tuple[str, Handler]] = {
    "AWSInsightsIndexService.GetCostAndUsage": ("ce", _cost_and_usage),
    "AWSPriceListService.GetProducts": ("pricing", _products),
}


class Spending:
    """These services of one server."""

    def __init__(self, hosting: Hosting, addressing: Addressing) -> None:
        self._hosting, self._addressing = hosting, addressing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        target = headers[b"x-amz-target"].decode("latin-1")
        name, handler = OPERATIONS[target]
        body = await take_in(receive, LARGEST)
        if body is None:
            return
        home = self._addressing.of(headers.get(b"authorization", b"")).home
        try:
            if body.size > LARGEST:
                raise RequestTooLarge(f"The request has more than {LARGEST} bytes.")
            request = _known(name).requests[target.partition(".")[2]]
            done = await handler(self._hosting, home, checked(request, parsed(body.kept)))
        except LukewarmError as error:
            await refuse(send, error)
        else:
            await respond(send, 200, done)


@cache
def _known(name: str) -> service.Service:
    """The service's model, read when it is first needed."""
    wanted = [target.partition(".")[2] for target, (of, _) in OPERATIONS.items() if of == name]
    return service.load(wanted, name)
