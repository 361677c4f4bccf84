"""The Faust app of a role: one agent over all source topics, whose events are cuts."""

import ssl
from pathlib import Path
from typing import Any, cast

import faust

from schemas.settings import Settings
from streams.engine.consumer import CutConsumer, CutTransport
from streams.engine.cut import Cut
from streams.engine.line import Spec

_MAX_FETCH_BYTES = 1 << 20


def build(spec: Spec, settings: Settings, web_port: int, datadir: Path) -> faust.App:
    """Make the app of a role.

    The settings are those that FAUST's own table and commit machinery does not need: no standbys, no
    declared topics, no leader topic; offsets out of range are errors.
    """
    app = faust.App(
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
        web_port=web_port,
        datadir=datadir,
        loghandlers=[],
    )
    transport = CutTransport(spec, app.conf.broker_consumer, app)
    app.transport = transport
    raw: Any = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    source = app.topic(*spec.sources, schema=raw)

    @app.agent(source, name=spec.app)
    async def line(cuts: Any) -> None:
        async for event in cuts.events():
            cut: Cut = event.value
            await cast(CutConsumer, app.consumer).handle(cut)

    @app.page("/metrics")
    async def metrics(view: Any, request: Any) -> Any:
        return view.bytes(transport.metrics.text(), content_type="text/plain")

    return app


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
