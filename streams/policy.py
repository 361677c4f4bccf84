"""The policy of a deployment: where its files are, and what they say."""

from pathlib import Path

import infra
from schemas.policy import Policy
from schemas.settings import Settings


def policy_folder(settings: Settings) -> Path:
    """The deployment's policy folder, or the packaged one."""
    return settings.policy_dir or Path(infra.__file__).parent / "policy"


def load_policy(settings: Settings) -> Policy:
    """Load what the policy folder says. Raises PolicyError."""
    from streams import policy_check  # here, because it checks SQL, and who asks for the folder does not

    return policy_check.load(policy_folder(settings))
