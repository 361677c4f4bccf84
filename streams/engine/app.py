"""The Faust app of a role: one agent over all source topics, whose events are turns of cuts."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import faust

from schemas.settings import Settings
from streams.engine.consumer import CutConsumer, CutTransport, end_worker
from streams.engine.cut import Cut
from streams.engine.ends import Ends
from streams.engine.health import Health
from streams.engine.inspection import Inspection, Signs
from streams.engine.line import Spec
from streams.engine.watchdog import Watchdog
from streams.engine.web import HeldWeb

_MAX_FETCH_BYTES = 1 << 10  # the feed fetches; this is for what slips through before Faust is told so
_ENDS_EVERY_S: Final = 5.0


class CutApp(faust.App):
    """A Faust app that is watched from its start until it has stopped."""

    signs: Signs
    watchdog: Watchdog

    async def on_start(self) -> None:
        """Begin to watch: the consumer is made, and the group not joined yet."""
        await super().on_start()
        self.watchdog.start(asyncio.get_running_loop())

    async def on_shutdown(self) -> None:
        """Watch no longer: all is drained."""
        await super().on_shutdown()
        self.watchdog.stop()


def build(spec: Spec, settings: Settings, web: socket.socket, datadir: Path) -> CutApp:
    """Make the app of a role; its web server is on the socket `web`, which listens.

    The settings are those that FAUST's own table and commit machinery does not need: no standbys, no
    declared topics, no leader topic; offsets out of range are errors.
    """
    app = CutApp(
        spec.app,
        broker=[f"kafka://{address}" for address in spec.client.brokers.split(",")],
        broker_credentials=_credentials(settings),
        store="memory://",
        topic_partitions=settings.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_max_fetch_size=_MAX_FETCH_BYTES,
        consumer_auto_offset_reset="none",
        consumer_group_instance_id=settings.worker_id,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 6,
        broker_request_timeout=max(60.0, 2 * settings.session_timeout_s),
        stream_buffer_maxsize=settings.partitions,
        stream_recovery_delay=0.0,
        web_bind=settings.web_bind,
        stream_wait_empty=True,  # drain before leaving
        web_port=web.getsockname()[1],
        datadir=datadir,
        loghandlers=[],
    )
    transport = CutTransport(spec, app.conf.broker_consumer, app)
    app.transport = transport
    app.web = HeldWeb(app, web)
    app.signs = Signs()
    ends = Ends(spec.client, min(_ENDS_EVERY_S, settings.watchdog_s / 10))
    inspection = Inspection(app, app.signs, ends)
    app.watchdog = Watchdog(settings.watchdog_s, inspection.look, ends.answers, ends.holds, end_worker)
    raw: Any = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    source = app.topic(*spec.sources, schema=raw)

    @app.agent(source, name=spec.app)
    async def line(turns: Any) -> None:
        async for event in turns.events():
            cuts: Sequence[Cut] = event.value
            await cast(CutConsumer, app.consumer).handle(cuts)

    @app.page("/metrics")
    async def metrics(view: Any, request: Any) -> Any:
        transport.metrics.behind(inspection.lags(), app.watchdog.longest)
        return view.bytes(transport.metrics.text(), content_type="text/plain")

    @app.page("/livez")
    async def livez(view: Any, request: Any) -> Any:
        return _answer(view, Health(app.watchdog.overdue()))

    @app.page("/readyz")
    async def readyz(view: Any, request: Any) -> Any:
        return _answer(view, inspection.ready())

    return app


def _answer(view: Any, health: Health) -> Any:
    return view.json(health.body(), status=health.status)


def _credentials(settings: Settings) -> Any:
    if settings.security == "PLAINTEXT":
        return None
    context = ssl.create_default_context(cafile=str(settings.tls_ca) if settings.tls_ca else None)
    if settings.security == "SSL":
        return context
    password = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    encrypted = settings.security == "SASL_SSL"
    return faust.SASLCredentials(
        username=settings.sasl_username,
        password=password,
        mechanism=settings.sasl_mechanism,
        ssl_context=context if encrypted else None,
    )
