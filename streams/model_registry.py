"""Trained models and their roles: what stands in the registry, and what control has put in force."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.hours import CANDIDATES
from models.sendtime.model import ModelRefused
from schemas.policy import BUILT_IN
from schemas.settings import Settings
from sinks.registry import VersionUnknown, keys
from sinks.registry.artefact import Artefact
from sinks.registry.folder import Registry
from streams import serving
from streams.control import ModelChange, Role
from streams.engine.control import Control, Deployed

State = Literal["candidate", "shadow", "canary", "champion", "retired"]

_CANDIDATE: Final[tuple[State, None]] = ("candidate", None)


class NothingBefore(LookupError):
    """There is no champion to go back from."""


@dataclass(frozen=True)
class Known:
    """A version that is in the registry, in control, or both; `since` is the control version of its role."""

    version: str
    state: State
    since: int | None
    share: float
    facts: dict[str, Any] | None


def registry(settings: Settings) -> Registry:
    """The registry; of this machine's state folder it is made where it is not there yet."""
    folder = serving.registry_folder(settings)
    if settings.model_dir is None:
        folder.mkdir(parents=True, exist_ok=True)
    return Registry(folder)


def known(control: Control, kept: Registry) -> list[Known]:
    """Every version: those of the registry, oldest first, then those that only control knows."""
    roles = _roles(control)
    stored = {version: kept.get(version).facts for version in kept.versions()}
    found = []
    for version in dict.fromkeys((*stored, *roles)):
        state, deployed = roles.get(version, _CANDIDATE)
        since = None if deployed is None else deployed.since
        share = 0.0 if deployed is None else deployed.share
        found.append(Known(version, state, since, share, stored.get(version)))
    return found


def _roles(control: Control) -> dict[str, tuple[State, Deployed]]:
    roles: dict[str, tuple[State, Deployed]] = {each.version: ("retired", each) for each in control.champions}
    if control.shadow is not None:
        roles[control.shadow.version] = ("shadow", control.shadow)
    if control.canary is not None:
        roles[control.canary.version] = ("canary", control.canary)
    if control.champions:
        roles[control.champions[-1].version] = ("champion", control.champions[-1])
    return roles


def promotion(settings: Settings, version: str, role: Role, share: float) -> ModelChange:
    """The change that gives a version of the registry a role, checked as the workers will check it.

    Raises `RegistryError` or `ModelRefused`.
    """
    if version == BUILT_IN:
        return ModelChange(BUILT_IN, role, share)
    artefact = registry(settings).get(version)
    slots = artefact.facts.get("slots", CANDIDATES)
    if slots != CANDIDATES:
        raise ModelRefused(
            f"{artefact.version} was trained to choose among {slots} hours, workers ask for {CANDIDATES}: "
            "train another"
        )
    serving.load(artefact, serving.trusted_keys(settings))
    return change_of(artefact, role, share)


def refuse_beside_itself(change: ModelChange, control: Control) -> None:
    """Check that the champion is not to be its own canary or shadow. Raises `ModelRefused`."""
    if change.role != "champion" and control.line and control.line[-1].version == change.version:
        raise ModelRefused(f"{change.version} is champion: it cannot be {change.role} beside itself")


def change_of(artefact: Artefact, role: Role, share: float) -> ModelChange:
    """The change that gives an artefact a role."""
    return ModelChange(artefact.version, role, share, artefact.card, artefact.npz, artefact.signature)


def former(control: Control) -> ModelChange:
    """The change that makes the champion before the present one champion again, or the built-in.

    Goes back along `Control.line`, and needs no registry, since control has the artefacts. Raises
    `NothingBefore`.
    """
    line = control.line
    if not line:
        raise NothingBefore("no trained model is champion: there is nothing to go back from")
    if len(line) == 1:
        return ModelChange(BUILT_IN, "champion")
    last = line[-2]
    return ModelChange(last.version, "champion", 0.0, last.card, last.npz, last.signature)


def in_role(control: Control, beginning: str) -> str:
    """The version that is canary or shadow and begins so. Raises `VersionUnknown`."""
    roles = [each.version for each in (control.canary, control.shadow) if each is not None]
    found = [version for version in roles if version.startswith(beginning)]
    if len(found) != 1:
        raise VersionUnknown(
            f"{beginning} is neither canary nor shadow; those are: {', '.join(roles) or 'none'}"
        )
    return found[0]


def signing_key(settings: Settings, tell: Callable[[str], None]) -> Ed25519PrivateKey:
    """The key that models are signed by; made where none is set, and none is there. Raises `KeyRefused`."""
    place = serving.signing_key(settings)
    if settings.model_key is None and not place.exists():
        keys.make_pair(place)
        tell(
            f"Made a key to sign models by: {place}. Workers take models from whom they trust: give those on "
            f"other machines {keys.public_path(place)}, by the setting model_trust."
        )
    return keys.load_private(place)
