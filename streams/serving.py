"""Send-time models that control puts in force, checked and loaded once each."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from models.sendtime import golden, intercept
from models.sendtime.model import SCHEMA, HourModel, ModelRefused
from models.sendtime.serving import Models
from schemas.policy import BUILT_IN, SendTime
from schemas.settings import Settings
from sinks.registry import RegistryError, keys
from sinks.registry.artefact import Artefact, opened
from streams import events
from streams.engine.control import Control, Deployed

Trusted = Callable[[], Sequence[Ed25519PublicKey]]

_log = structlog.get_logger()


def registry_folder(settings: Settings) -> Path:
    """Where trained models are kept."""
    return settings.model_dir or settings.state_dir / "models"


def signing_key(settings: Settings) -> Path:
    """The private key that models are signed by; its public half is beside it."""
    return settings.model_key or registry_folder(settings) / "signing.key"


def trusted_keys(settings: Settings) -> list[Ed25519PublicKey]:
    """The keys whose models may serve; none where nothing was ever signed here. Raises `KeyRefused`."""
    if settings.model_trust:
        return [keys.load_public(path) for path in settings.model_trust]
    own = keys.public_path(signing_key(settings))
    return [keys.load_public(own)] if own.exists() else []


def load(artefact: Artefact, trusted: Sequence[Ed25519PublicKey]) -> HourModel:
    """The model of an artefact: signed, whole, of this schema, with the answers that it had in training.

    Raises `ArtefactRefused` or `ModelRefused`.
    """
    return golden.model_of(artefact.version, opened(artefact, trusted, SCHEMA))


class Serving:
    """Which models serve by a state of control; one that may not be used is told once, and another serves.

    Of the line of champions the newest that may, at last the built-in one; of a canary or a shadow none.
    Asked by several threads: the same artefact may be loaded twice, with the same result.
    """

    def __init__(self, policy: SendTime, trusted: Trusted) -> None:
        self._built_in = HourModel.built_in(policy)
        self._trusted_keys = trusted
        self._loaded: dict[tuple[str, int], HourModel | None] = {}

    def models(self, control: Control) -> Models:
        """The models in force, each with its intercept."""
        trained = self.as_trained(control)
        return Models(
            _shifted(trained.champion, control),
            None if trained.canary is None else _shifted(trained.canary, control),
            trained.share,
            None if trained.shadow is None else _shifted(trained.shadow, control),
            control.models,
        )

    def as_trained(self, control: Control) -> Models:
        """The models in force without their intercepts."""
        champion = next(
            (model for each in reversed(control.line) if (model := self._model(each)) is not None),
            self._built_in,
        )
        canary = None if control.canary is None else self._model(control.canary)
        shadow = None if control.shadow is None else self._model(control.shadow)
        share = 0.0 if control.canary is None else control.canary.share
        return Models(champion, canary, share, shadow, control.models)

    def _model(self, deployed: Deployed) -> HourModel | None:
        if deployed.version == BUILT_IN:
            return self._built_in
        known = deployed.version, deployed.since
        if known not in self._loaded:
            self._loaded[known] = self._checked(deployed)
        return self._loaded[known]

    def _checked(self, deployed: Deployed) -> HourModel | None:
        artefact = Artefact(deployed.card, deployed.npz, deployed.signature)
        try:
            if artefact.version != deployed.version:
                raise ModelRefused(f"it is {artefact.version}, sent as {deployed.version}")
            model = load(artefact, self._trusted)
        except (RegistryError, ModelRefused) as error:
            _log.error(
                events.MODEL_REFUSED,
                model=deployed.version,
                control_version=deployed.since,
                error=str(error),
            )
            return None
        _log.info(events.MODEL_LOADED, model=deployed.version, control_version=deployed.since)
        return model

    @cached_property
    def _trusted(self) -> Sequence[Ed25519PublicKey]:
        return self._trusted_keys()


def _shifted(model: HourModel, control: Control) -> HourModel:
    log_odds = control.intercept_of(model.version)
    return model.shifted(min(max(log_odds, -intercept.MOST), intercept.MOST)) if log_odds else model
