"""Which hosts take the mail of domains, asked of DNS."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final

from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.resolver import NXDOMAIN, NoAnswer

_AT_ONCE: Final = 50
_EACH_S: Final = 5.0


class MxLookup:
    """Asks for MX records, of each domain once, many at a time; for one thread.

    Parameters
    ----------
    resolver
        Whom to ask; the system's resolvers if none is given.
    limit_s
        Longest time for one call: domains that have no answer by then have none.
    progress
        Told how many domains were asked for, each time that one has its answer.
    """

    def __init__(
        self,
        resolver: Resolver | None = None,
        limit_s: float = 60.0,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._resolver = Resolver() if resolver is None else resolver
        self._resolver.lifetime = min(_EACH_S, limit_s)
        self._limit_s = limit_s
        self._progress = progress
        self._answered = 0
        self._known: dict[str, str | None] = {}

    def __call__(self, domains: Collection[str]) -> Mapping[str, str | None]:
        """The host that takes a domain's mail first; empty where none does, None where there is no answer."""
        asyncio.run(self._ask(sorted({*domains} - self._known.keys())))
        return {domain: self._known[domain] for domain in domains}

    async def _ask(self, domains: Collection[str]) -> None:
        self._known |= dict.fromkeys(domains)
        left = iter(domains)

        async def ask() -> None:
            for domain in left:
                self._known[domain] = await self._host(domain)
                self._answered += 1
                self._progress(self._answered)

        some = [asyncio.create_task(ask()) for _ in range(min(_AT_ONCE, len(domains)))]
        if some:
            _, late = await asyncio.wait(some, timeout=self._limit_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*some, return_exceptions=True)

    async def _host(self, domain: str) -> str | None:
        try:
            answer = await self._resolver.resolve(domain, "MX")
        except (NXDOMAIN, NoAnswer):
            return ""
        except (DNSException, OSError):
            return None
        first = min((record.preference, record.exchange.to_text(omit_final_dot=True)) for record in answer)
        return "" if first[1] == "." else first[1]
