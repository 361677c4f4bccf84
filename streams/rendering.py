"""From a claim to a message: the address out of the vault, the campaign's template, headers, signature."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from models import templates
from models.deliver import Claim, Result
from models.templates import Template, TemplateError
from schemas.mail_settings import MailSettings
from schemas.policy import Policy, PolicyError
from schemas.policy_files import Problem
from schemas.routes import LaneName
from sinks.transports import Message
from sinks.transports.dkim import Signer
from sinks.vault import Contact, Vault, WrongKey
from streams.sending_lane import Prepared


class TemplateRefused(PolicyError):
    """A template is missing or wrong; `problem` says where."""

    def __init__(self, problem: Problem) -> None:
        """Say where and why."""
        super().__init__(str(problem))
        self.problem = problem


def load_templates(folder: Path, policy: Policy) -> dict[str, Template]:
    """The template of every campaign, from `templates/<name>/` in a policy folder.

    Raises
    ------
    TemplateRefused
        A campaign's template is missing or wrong.
    """
    return {name: load_template(folder, name) for name in sorted({c.template for c in policy.campaigns})}


def load_template(folder: Path, name: str) -> Template:
    """The template in `templates/<name>/` of a policy folder. Raises `TemplateRefused`."""
    place = folder / "templates" / name
    try:
        files = {path.name: path.read_text() for path in sorted(place.iterdir()) if path.is_file()}
    except OSError as error:
        text = f"{error.strerror}; a template is a folder with its files"
        raise TemplateRefused(Problem(place, 1, 1, text)) from error
    except UnicodeDecodeError as error:
        raise TemplateRefused(Problem(place, 1, 1, f"a file is not UTF-8: {error}")) from error
    try:
        return templates.compile_template(name, files)
    except TemplateError as error:
        raise TemplateRefused(Problem(place / error.file, max(1, error.line), 1, error.cause)) from error


class Renderer:
    """Prepares claims for `streams.sender`; blocking and free of effects."""

    def __init__(
        self,
        vault: Vault,
        found: Mapping[str, Template],
        identities: Mapping[str, MailSettings],
        signers: Mapping[str, Signer | None],
    ) -> None:
        self._vault, self._templates = vault, found
        self._identities, self._signers = identities, signers

    def __call__(self, claims: Sequence[Claim], now: int) -> list[Prepared | Result]:
        """See `streams.sender.Prepare`."""
        try:
            contacts = self._vault.get_many([claim.recipient_id for claim in claims])
        except WrongKey as error:
            if len(claims) == 1:
                return [_deferred(claims[0], now, str(error))]
            return [ready for claim in claims for ready in self([claim], now)]  # the others can go
        return [self._prepare(claim, contacts.get(claim.recipient_id), now) for claim in claims]

    def _prepare(self, claim: Claim, contact: Contact | None, now: int) -> Prepared | Result:
        template, identity = self._templates.get(claim.template), LaneName.of(claim.lane).identity
        settings = self._identities.get(identity)
        # What is missing may come yet: an import or a deployment is late. If not, the message expires.
        if contact is None:
            return _deferred(claim, now, "no address in the vault")
        if template is None:
            return _deferred(claim, now, f"no template {claim.template}")
        if settings is None:
            return _deferred(claim, now, f"no identity {identity} in the settings")
        context = {
            "attributes": contact.attributes,
            "recipient_id": claim.recipient_id,
            "campaign": claim.campaign,
            "unsubscribe_url": templates.unsubscribe_link(settings.unsubscribe_url, claim.dispatch_id),
        }
        purpose = "transactional" if claim.urgent else "mail"  # as in models.order.Ranks
        used = f"{template.name}@{template.digest}"
        try:
            content = templates.compose(
                templates.render(template, context),
                dispatch_id=claim.dispatch_id,
                lane=claim.lane,
                campaign=claim.campaign,
                sender=settings.mail_from,
                recipient_address=contact.address,
                at=now,
                domain=settings.mail_domain,
                unsubscribe_url=settings.unsubscribe_url,
                unsubscribe_mailto=settings.unsubscribe_mailto,
                feedback=templates.feedback_id(claim.campaign, template, purpose, settings.feedback_sender),
            )
        except TemplateError as error:
            return Result(claim.dispatch_id, "bounced", now, detail=f"not rendered: {error}", template=used)
        signer = self._signers[identity]
        if signer is not None:
            content = signer.sign(content, now)
        return Prepared(Message(claim.dispatch_id, contact.address, content), used)


def _deferred(claim: Claim, now: int, why: str) -> Result:
    return Result(claim.dispatch_id, "deferred", now, detail=why)
