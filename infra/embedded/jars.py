"""The jars of Apache Kafka, fetched once through `jgo` from a Maven repository and pinned by sha256.

`jars.lock` names every jar, so nothing is resolved when a server starts: each missing jar is fetched by its
exact version, checked, and moved into `<cache>/kafka-<version>/`. Every start checks all of them again
(45 MB, 30 ms), which is why nothing records that a check was done. Every jar goes on the class path;
jgo's own environment has only two of them there and sorts the rest as modules.

jgo reads no Maven settings. What it does read is honoured: the local repository (`M2_REPO`, or
`~/.m2/repository`) is looked into first and never written to, `[repositories]` of `jgo.conf` may replace
`central` by a mirror, and `HTTPS_PROXY` and `REQUESTS_CA_BUNDLE` work as for every Python program.

To move to another version: change `ROOTS`, run `python -m infra.embedded.jars`, read the diff, commit it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.embedded.process import EmbeddedError, Progress, locked, silent, write_atomically

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA = "4.3.1"
# Kafka brings log4j2 and slf4j 1.7 without what connects them: log4j-slf4j-impl (-slf4j2- is for slf4j 2).
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
LOCK = Path(__file__).with_name("jars.lock")
FETCHERS = 8


class JarRefused(EmbeddedError):  # noqa: N818 - says what happened
    """A jar is not the one that was pinned. Halt: it is corrupt, or somebody changed it."""

    def __init__(self, jar: Jar, found: str, where: Path, remedy: str) -> None:
        """Name the jar, both digests, and what to do."""
        super().__init__(
            f"{jar.name} was refused: {where} is not the file that {LOCK.name} pins.\n"
            f"  expected sha256 {jar.sha256}\n  found    sha256 {found}\n{remedy}"
        )


class JarUnavailable(EmbeddedError):  # noqa: N818 - says what happened
    """A jar could not be fetched. Retry later: those already fetched are kept."""

    def __init__(self, jar: Jar, cause: Exception) -> None:
        """Name the jar, the cause, and what to do."""
        super().__init__(
            f"{jar.coordinates} could not be fetched: {cause}\n"
            "Check the network (HTTPS_PROXY behind a proxy, REQUESTS_CA_BUNDLE where it signs by itself; a "
            "mirror as `central` under [repositories] of ~/.config/jgo.conf), then run it again: the jars "
            "already fetched are kept. Without a network, put them into the Maven repository in M2_REPO."
        )


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """`group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def name(self) -> str:
        """The file name."""
        return f"{self.artifact}-{self.version}.jar"


def read_lock(text: str) -> tuple[Jar, ...]:
    """Return the jars of a lock file: `group:artifact:version sha256` a line, `#` starts a comment.

    Raises
    ------
    EmbeddedError
        A line is not of that form.
    """
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match line.replace(":", " ").split():
            case [group, artifact, version, sha256] if len(sha256) == 64:
                jars.append(Jar(group, artifact, version, sha256))
            case _:
                raise EmbeddedError(
                    f"line {number} of the lock file is not `group:artifact:version sha256`: {line}"
                )
    return tuple(jars)


def class_path(
    cache: Path, on_progress: Progress = silent, pinned: Sequence[Jar] | None = None
) -> tuple[Path, ...]:
    """Return the path of every pinned jar, each checked just now; fetch those that are missing.

    Raises
    ------
    JarRefused
        A jar's sha256 is not the pinned one.
    JarUnavailable
        A jar is missing and cannot be fetched.
    """
    jars = read_lock(LOCK.read_text()) if pinned is None else pinned
    folder = cache / f"kafka-{KAFKA}"
    with locked(cache / f"kafka-{KAFKA}.lock", on_progress):
        missing = [jar for jar in jars if not (folder / jar.name).exists()]
        if missing:
            folder.mkdir(exist_ok=True)
            _fetch(missing, folder, on_progress, have=len(jars) - len(missing))
        for jar in jars:
            path = folder / jar.name
            _check(jar, path.read_bytes(), path, f"Delete {path} and run it again: it will be fetched anew.")
    return tuple(folder / jar.name for jar in jars)


def _fetch(missing: Sequence[Jar], folder: Path, on_progress: Progress, *, have: int) -> None:
    """Fetch jars into `folder`, several at a time; only what was checked gets there."""
    total = have + len(missing)
    on_progress(f"resolving jars {have}/{total}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as staging:
        maven = _maven(Path(staging))
        with ThreadPoolExecutor(FETCHERS) as pool:
            fetched = [pool.submit(_fetch_one, jar, maven, folder) for jar in missing]
            try:
                for done, one in enumerate(as_completed(fetched), start=have + 1):
                    one.result()
                    on_progress(f"resolving jars {done}/{total}")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _fetch_one(jar: Jar, maven: MavenContext, folder: Path) -> None:
    try:
        found = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        data = found.read_bytes()
    except (RuntimeError, OSError) as error:  # requests' own errors are OSErrors
        raise JarUnavailable(jar, error) from error
    ours = found.is_relative_to(folder)
    remedy = "" if ours else f"Delete {found} and run it again, or name another repository with M2_REPO.\n"
    _check(
        jar, data, found, remedy + "If it happens again, the repository serves another file: do not use it."
    )
    write_atomically(folder / jar.name, data)


def _check(jar: Jar, data: bytes, where: Path, remedy: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != jar.sha256:
        raise JarRefused(jar, found, where, remedy)


def _maven(staging: Path) -> MavenContext:
    """Return jgo's view of the repositories: `staging` to download into, the user's own to read from."""
    from jgo.config import GlobalSettings  # here, because only a first start needs jgo
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    return MavenContext(
        repo_cache=staging,
        local_repos=[settings.repo_cache],
        remote_repos={"central": MAVEN_CENTRAL_URL, **settings.repositories},
        timeout=30,
    )


def resolve_lock(roots: Sequence[str] = ROOTS) -> str:
    """Return the text of a new lock file: `roots` and all they depend on, as the repository has them today.

    One root at a time, an earlier one deciding what both need: resolved together, the second's dependency
    management replaced Kafka's own versions of Jackson, lz4 and zstd by others.
    """
    from jgo.maven import Dependency

    lines: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as staging:
        maven = _maven(Path(staging))
        for root in roots:
            group, artifact, version = root.split(":")
            wanted = Dependency(maven.project(group, artifact).at_version(version).artifact())
            inputs, transitive = maven.resolver.resolve([wanted])
            for item in (*inputs, *(other for other in transitive if other.scope in ("compile", "runtime"))):
                digest = hashlib.sha256(item.artifact.resolve().read_bytes()).hexdigest()
                name = f"{item.groupId}:{item.artifactId}"
                lines.setdefault(name, f"{name}:{item.version} {digest}")
    return "\n".join([f"# {', '.join(roots)}", *sorted(lines.values())]) + "\n"


def default_cache() -> Path:
    """Return the folder in which jars are kept for all of a user's projects."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opportune"


if __name__ == "__main__":
    LOCK.write_text(resolve_lock())
