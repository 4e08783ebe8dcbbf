"""Counting together with other gateways, in a Redis or Valkey: one script looks at all limits of a call and counts it.

While the store is away every gateway does what ``when_away`` says, and asks again once a second. The client library is
optional (``callgate[redis]``) and imported when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from callgate.config import QuotasStore
from callgate.errors import ConfigError

from .charge import Entry
from .counters import NEARLY, SLOTS, Limit, Moment, ends

log = logging.getLogger("callgate.quotas")

#: The store is left alone for this time (seconds) after it did not answer.
PAUSE = 1.0
#: Corrections that may wait for the store; more are lost, and the calls that made them count as too little.
WAITING = 10_000
Away = Literal["allow", "deny", "local"]

# Each limit is a key and seven arguments: kind, want, amount, p, q, hard, slot.
#   r: a bucket; p is the time for one, q the burst.     c: a period of the calendar; p is how long the key lives.
#   s: a sliding period; p is the length of a slot, q how many there are; slot -1 is the current one.
# A correction is the same with hard = 0. The clock of buckets and slots is the store's own.
SCRIPT = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local waits, used, slots, refused = {}, {}, {}, false
for i = 1, #KEYS do
  local b = (i - 1) * 7
  local kind, want, amount = ARGV[b + 1], tonumber(ARGV[b + 2]), tonumber(ARGV[b + 3])
  local p, q, wait, total = tonumber(ARGV[b + 4]), tonumber(ARGV[b + 5]), 0, 0
  slots[i] = 0
  if kind == 'r' then
    local tat = tonumber(redis.call('GET', KEYS[i]) or '0')
    if tat < now then tat = now end
    wait = tat + p * want - now - p * q
    total = (tat - now) / p
  elseif kind == 'c' then
    total = tonumber(redis.call('GET', KEYS[i]) or '0')
    if total + want > amount * (1 + NEARLY) then wait = -1 end
  else
    local current = math.floor(now / p)
    slots[i] = current
    local found = redis.call('HGETALL', KEYS[i])
    local first = {}
    for f = 1, #found, 2 do
      local slot, value = tonumber(found[f]), tonumber(found[f + 1])
      if slot < current - q then
        redis.call('HDEL', KEYS[i], found[f])
      else
        total = total + value
        first[#first + 1] = {slot, value}
      end
    end
    if total + want > amount * (1 + NEARLY) then
      table.sort(first, function(a, b) return a[1] < b[1] end)
      local room = amount - total - want
      wait = p * q
      for _, each in ipairs(first) do
        room = room + each[2]
        if room >= 0 then
          wait = (each[1] + q + 1) * p - now
          break
        end
      end
    end
  end
  if wait > 0 and wait < NEARLY then wait = 0 end
  if kind == 'r' and wait < 0 then wait = 0 end
  waits[i], used[i] = wait, total
  if wait ~= 0 and ARGV[b + 6] == '1' then refused = true end
end
if not refused then
  for i = 1, #KEYS do
    local b = (i - 1) * 7
    local kind, want, p, q = ARGV[b + 1], tonumber(ARGV[b + 2]), tonumber(ARGV[b + 4]), tonumber(ARGV[b + 5])
    used[i] = used[i] + want
    if kind == 'r' then
      local tat = tonumber(redis.call('GET', KEYS[i]) or '0')
      if tat < now then tat = now end
      tat = tat + p * want
      redis.call('SET', KEYS[i], string.format('%.6f', tat), 'PX', math.ceil((tat - now) * 1000) + 1000)
    elseif kind == 'c' then
      redis.call('INCRBYFLOAT', KEYS[i], want)
      redis.call('PEXPIRE', KEYS[i], math.ceil(p * 1000))
    else
      local slot = ARGV[b + 7]
      if slot == '-1' then slot = string.format('%d', slots[i]) end
      if want >= 0 or redis.call('HEXISTS', KEYS[i], slot) == 1 then
        redis.call('HINCRBYFLOAT', KEYS[i], slot, want)
      end
      redis.call('PEXPIRE', KEYS[i], math.ceil(p * (q + 2) * 1000))
    end
  end
end
local said = {refused and '0' or '1'}
for i = 1, #KEYS do
  said[#said + 1] = string.format('%.6f %.6f %d', waits[i], used[i], slots[i])
end
return said
""".replace("NEARLY", f"{NEARLY:.7f}")


class Said(NamedTuple):
    """What the store says of one limit: seconds to wait (0: counted), what is used, and the slot."""

    wait: float
    used: float
    slot: int


class Shared:
    """The store. ``resolve`` follows the reference to its password."""

    def __init__(self, config: QuotasStore, resolve: Callable[[str], Awaitable[str]] | None = None) -> None:
        try:
            import redis.asyncio  # noqa: F401
        except ImportError:
            raise ConfigError(
                "`quotas_store` needs the package `redis`.", hint="Install it with `pip install 'callgate[redis]'`."
            ) from None
        self._config = config
        self._resolve = resolve
        self._script: Any = None
        self._client: Any = None
        self._until = 0.0
        self._corrections: asyncio.Queue[tuple[Entry, int, float]] = asyncio.Queue(WAITING)
        self._work: asyncio.Task[None] | None = None
        self.away = False
        self.lost = 0

    async def take(self, pairs: Sequence[tuple[Entry, float]], moment: Moment) -> Sequence[Said] | Away:
        """Count a call, or see why not; ``when_away`` when the store does not answer."""
        if moment.mono < self._until:
            return self._config.when_away
        try:
            async with asyncio.timeout(self._config.timeout):
                return await self._ask([(entry, want, -1) for entry, want in pairs], moment)
        except Exception as why:  # whatever it is: the store cannot be asked
            self._lose(why, moment)
            return self._config.when_away

    def correct(self, entry: Entry, slot: int, amount: float) -> None:
        """Count what became known when the call ended, soon."""
        if not amount:
            return
        try:
            self._corrections.put_nowait((entry, slot, amount))
        except asyncio.QueueFull:
            self.lost += 1
            return
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._write(), name="quota corrections")

    async def settled(self) -> None:
        """Wait until everything is written that can be."""
        if self._work is not None:
            await asyncio.wait({self._work}, timeout=1.0)

    async def aclose(self) -> None:
        await self.settled()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _write(self) -> None:
        from callgate.policy.limits.quotas import now

        while not self._corrections.empty():
            entry, slot, amount = self._corrections.get_nowait()
            moment = now()
            if moment.mono < self._until:
                self.lost += 1
                continue
            try:
                async with asyncio.timeout(self._config.timeout):
                    await self._ask([(entry, amount, slot)], moment, hard=False)
            except Exception as why:
                self.lost += 1
                self._lose(why, moment)

    async def _ask(
        self, wanted: Sequence[tuple[Entry, float, int]], moment: Moment, *, hard: bool = True
    ) -> Sequence[Said]:
        if self._script is None:
            self._script = await self._connected()
        keys, arguments = [], list[str]()
        for (limit, counter), want, slot in wanted:
            name, parts = self._form(limit, counter.key, slot, moment)
            keys.append(name)
            kind, p, q = parts
            firm = "1" if hard and limit.hard else "0"
            arguments += [kind, repr(want), repr(limit.amount), repr(p), repr(q), firm, str(slot)]
        said = await self._script(keys=keys, args=arguments)
        if self.away:
            self.away = False
            log.warning("the quota store answers again")
        counted = said[0] in (b"1", "1")
        return [_read(text, counted, limit, moment) for text, ((limit, _), _, _) in zip(said[1:], wanted, strict=True)]

    def _form(self, limit: Limit, key: str, slot: int, moment: Moment) -> tuple[str, tuple[str, float, float]]:
        # The braces keep all keys of a call together on one node.
        name = f"{{{self._config.prefix}}}:{limit.name}:{key}"
        if limit.measure == "rate":
            return name, ("r", limit.seconds / limit.amount, float(limit.burst))
        if limit.sliding:
            return name, ("s", limit.slot, float(SLOTS))
        start = limit.window(moment.wall)[0] if slot < 0 else slot
        return f"{name}:{start}", ("c", max(ends(limit, start) - moment.wall, 1.0) + 60.0, 0.0)

    async def _connected(self) -> Any:
        import redis.asyncio as client
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        config = self._config
        password = config.password
        if password is not None and self._resolve is not None:
            password = await self._resolve(password)
        more: dict[str, Any] = {"username": config.username, "password": password}
        if config.ca_file is not None:
            more["ssl_ca_certs"] = config.ca_file
        if self._client is None:
            self._client = client.Redis.from_url(
                config.url, socket_timeout=config.timeout, socket_connect_timeout=config.timeout,
                retry=Retry(NoBackoff(), 0), **{name: value for name, value in more.items() if value is not None},
            )  # fmt: skip
        return self._client.register_script(SCRIPT)

    def _lose(self, why: Exception, moment: Moment) -> None:
        self._until = moment.mono + PAUSE
        if not self.away:
            self.away = True
            how = {"allow": "calls are not counted", "deny": "calls are refused", "local": "counting here alone"}
            log.warning("the quota store is away (%s): %s", type(why).__name__, how[self._config.when_away])


def _read(text: Any, counted: bool, limit: Limit, moment: Moment) -> Said:
    wait, used, slot = (text.decode() if isinstance(text, bytes) else text).split(" ")
    seconds = float(wait)
    if counted:
        seconds = 0.0
    elif seconds < 0:  # the end of a period of the calendar, which the store does not know
        seconds = max(limit.window(moment.wall)[1] - moment.wall, NEARLY)
    at = int(slot) if limit.sliding else limit.window(moment.wall)[0] if limit.measure != "rate" else 0
    return Said(seconds, float(used), at)
