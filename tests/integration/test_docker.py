"""docker/: linted and looked at everywhere; where a scratch root can be mounted, built and run as an engine would.

No container engine is needed: the steps of the Dockerfile run below a copy-on-write view of this machine's own root
folder, one for each stage, in namespaces of their own.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from command_line import ROOT, grapnel

from api.keys import make_key
from api.server_config import ServerConfig

DOCKERFILE = ROOT / "docker" / "Dockerfile"
INSTRUCTION = re.compile(r"([A-Z]+)\s+(.*)", re.DOTALL)
AT_MOST_S = 1800


class Step(NamedTuple):
    """One instruction of a Dockerfile. value: the rest of it, on one line."""

    name: str
    value: str

    def words(self) -> list[str]:
        """Return the words of a COPY or an exec form."""
        listed: list[str] = json.loads(self.value) if self.value.startswith("[") else shlex.split(self.value)
        return listed


def stages() -> list[list[Step]]:
    """Return the steps of the Dockerfile, stage by stage, each beginning with its FROM."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[list[Step]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        match = INSTRUCTION.fullmatch(line)
        assert match is not None, f"{line!r} is no instruction"
        step = Step(match[1], match[2].strip())
        found += [[]] if step.name == "FROM" else []
        found[-1].append(step)
    return found


def one(steps: list[Step], name: str) -> Step:
    (found,) = [step for step in steps if step.name == name]
    return found


def command_of(step: Step) -> list[str]:
    """Return the command of a HEALTHCHECK."""
    return list(json.loads(step.value.partition("CMD")[2]))


# -- looked at ----------------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    if linter is None:
        pytest.skip("hadolint is not installed: it comes with the extra dev")
    done = subprocess.run([linter, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def copied() -> set[str]:
    """Return what the build stage copies from the repository."""
    return {source for step in stages()[0] if step.name == "COPY" for source in step.words()[:-1]}


def test_what_is_copied_is_there_and_is_the_whole_package() -> None:
    assert all((ROOT / source).exists() for source in copied())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"pyproject.toml", "README.md", "LICENSE"} == copied()
    assert [step.value for step in stages()[-1] if step.name == "COPY"] == ["--from=build /opt/grapnel /opt/grapnel"]


def test_the_build_context_is_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    nothing, *allowed, generated = [line for line in lines if not line.startswith("#")]
    assert nothing == "*"
    assert set(allowed) == {f"!{source}" for source in copied()}
    assert generated == "**/__pycache__", "last, as later lines win: layers would change whenever tests have run"


def test_the_configuration_with_its_keys_is_not_committed() -> None:
    assert "/docker/server.toml" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_extras_exist_and_torch_is_the_makefiles(compose: Any) -> None:
    arguments = dict(step.value.split("=", 1) for step in stages()[0] if step.name == "ARG" and "=" in step.value)
    assert one(stages()[0][-1:], "RUN").value == 'pip install ".[$EXTRAS]"'
    declared = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    gpu = compose["services"]["grapnel-gpu"]["build"]["args"]["EXTRAS"]
    for listed, faiss in ((arguments["EXTRAS"], "cpu"), (gpu, "gpu")):
        extras = set(listed.split(","))
        assert extras <= set(declared)
        assert extras & {"cpu", "gpu"} == {faiss}, "they install the same package"
    (torch,) = set(re.findall(r"pip install --quiet (torch==\S+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert arguments["TORCH"] == torch


def test_the_image_serves_as_a_user_without_rights() -> None:
    final = stages()[-1]
    assert one(final, "USER").value == "10001:10001"
    assert one(final, "ENTRYPOINT").words() == ["grapnel"]
    assert one(final, "VOLUME").value == "/data"
    assert one(final, "EXPOSE").value == str(ServerConfig().server.port)
    assert not [step for step in final if step.name == "ENV" and "KEY" in step.value], "no secrets in an image"


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_runs_this_image_safely(compose: Any) -> None:
    services = compose["services"]
    assert services["grapnel-gpu"]["extends"] == {"service": "grapnel"}
    main = services["grapnel"]
    context = (ROOT / "docker" / main["build"]["context"]).resolve()
    assert context == ROOT
    assert context / main["build"]["dockerfile"] == DOCKERFILE
    assert main["read_only"] is True
    assert main["cap_drop"] == ["ALL"]
    assert main["ports"] == ["127.0.0.1:8080:8080"]
    data, config = main["volumes"]
    assert data == "data:/data"
    assert "data" in compose["volumes"]
    assert one(stages()[-1], "CMD").words()[4] == config["target"]
    assert int(main["stop_grace_period"].removesuffix("s")) > ServerConfig().limits.drain_s


def test_the_example_configuration_serves_once_it_has_the_key_it_says_how_to_make(tmp_path: Path, compose: Any) -> None:
    example, path = (ROOT / "docker" / "server.toml.example").read_text(encoding="utf-8"), tmp_path / "server.toml"
    path.write_text(example, encoding="utf-8")
    assert ServerConfig.read(path).server.is_loopback
    # `compose run` would not do: several releases of it report on stdout, too.
    (command,) = re.findall(r"^# +docker run --rm (.+) >> docker/server\.toml$", example, re.MULTILINE)
    image, *words = command.split()
    assert image == compose["services"]["grapnel"]["image"]
    made = grapnel(*words)
    assert made.returncode == 0, made.stderr
    path.write_text(example + made.stdout, encoding="utf-8")
    config = ServerConfig.read(path, ['server.host="0.0.0.0"'])
    assert config.trusted_hosts() == ("*",)


# -- built and run ------------------------------------------------------------------------------------------------

ENTER = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir="$LAYER/upper",workdir="$LAYER/work" "$LAYER/root"
mount --rbind /dev "$LAYER/root/dev"
mount --rbind /sys "$LAYER/root/sys"
mount -t proc proc "$LAYER/root/proc"
chmod 755 "$LAYER/root/root"  # where this machine's Python may be; of the copy alone
"""
"""Shows a layer as a root folder, in a mount namespace of its own."""

SERVE = """
ip link set lo up
mount -t tmpfs -o mode=1777 tmpfs "$LAYER/root/tmp"
mount --bind "$LAYER/upper/data" "$LAYER/root/data"
mount -o remount,ro "$LAYER/root"
inside() { exec chroot --userspec="$RUN_AS" "$LAYER/root" env -C "$WORKDIR" "$@"; }
(inside "${server[@]}") & pid=$!
trap 'kill -9 $pid 2>/dev/null || true' EXIT
for _ in $(seq 600); do
  if (inside "${health[@]}") 2>/dev/null; then break; fi
  kill -0 $pid
  sleep .5
done
(inside "${health[@]}")
if (inside touch /opt/grapnel/written) 2>/dev/null; then echo "the root folder can be written"; exit 1; fi
(inside "${ask[@]}")
kill -TERM $pid
wait $pid
"""
"""Runs a server as its image says, with a network of its own; ends it once it is healthy and has answered."""

ASK = """
import json, os, urllib.request
def ask(method, path, body=None):
    headers = {"Authorization": "Bearer " + os.environ["SECRET"], "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:8080" + path, data, headers, method=method)
    return json.load(urllib.request.urlopen(request))
ask("POST", "/v1/collections", {"name": "notes"})
ask("PUT", "/v1/collections/notes/documents/a", {"text": "Grapnels are small anchors."})
print(json.dumps(ask("POST", "/v1/collections/notes/search", {"query": "anchors"})["hits"][0]["id"]))
"""


class Layer:
    """What a stage has changed, and what its later steps run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)
        # As in an image: a Python of its own, and none of what this one was started with.
        own = {"VIRTUAL_ENV", "PYTHONPATH", "GRAPNEL_DATA", "OMP_NUM_THREADS"}
        self.environment = {name: value for name, value in os.environ.items() if name not in own}
        self.environment["PATH"] = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.workdir = "/"

    def path(self, inside: str) -> Path:
        return self.folder / "upper" / Path(self.workdir, inside).relative_to("/")

    def run(self, script: str, *, user: str = "0:0", own_network: bool = False, **more: str) -> str:
        """Run bash in a namespace where the layer is a root folder; return what it printed."""
        done = subprocess.run(
            ["unshare", "--mount", *(["--net"] if own_network else []), "bash", "-c", ENTER + script],
            env={**self.environment, "LAYER": str(self.folder), "WORKDIR": self.workdir, "RUN_AS": user, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=AT_MOST_S,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout


def build(steps: list[Step], layer: Layer, others: dict[str, Layer]) -> None:
    """Carry out what an engine would; the steps that only describe the image are left out."""
    carried_out: dict[str, Callable[[Step], object]] = {
        "RUN": lambda step: layer.run(f'chroot "$LAYER/root" env -C "$WORKDIR" sh -c {shlex.quote(step.value)}'),
        "COPY": lambda step: copy(step, layer, others),
        "ENV": lambda step: define(step, layer),
        "ARG": lambda step: define(step, layer) if "=" in step.value else None,
        "WORKDIR": lambda step: move(step, layer),
    }
    described = {"FROM", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    for step in steps:
        if step.name not in described:
            carried_out[step.name](step)


def define(step: Step, layer: Layer) -> None:
    for word in step.words():
        name, _, value = word.partition("=")
        layer.environment[name] = value.replace("$PATH", layer.environment["PATH"])


def move(step: Step, layer: Layer) -> None:
    layer.workdir = step.value
    layer.path(".").mkdir(parents=True, exist_ok=True)


def copy(step: Step, layer: Layer, others: dict[str, Layer]) -> None:
    *sources, target = step.words()
    from_stage = sources[0].startswith("--from=")
    for source in sources[1:] if from_stage else sources:
        path = others[sources[0].removeprefix("--from=")].path(source) if from_stage else ROOT / source
        into = layer.path(target) / path.name if target.endswith("/") else layer.path(target)
        into.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", path, into], check=True)


def as_array(words: list[str]) -> str:
    return f"({shlex.join(words)})"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for layers, which are large."""
    with tempfile.TemporaryDirectory(prefix="grapnel-docker-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_the_steps_build_a_server_that_serves_and_ends(scratch: Path) -> None:
    """The CPU image: each step in a scratch root, then its command as its user, with a root folder it cannot write."""
    probe = Layer(scratch / "probe")
    try:
        probe.run("true")
    except (AssertionError, FileNotFoundError) as error:
        pytest.skip(f"may not mount a scratch root: {error}")
    layers: dict[str, Layer] = {}
    steps: list[Step] = []
    for number, steps in enumerate(stages()):
        _, _, name = steps[0].value.partition(" AS ")
        layer = layers[name or str(number)] = Layer(scratch / str(number))
        build(steps, layer, layers)
    secret, digest = make_key()
    config = layer.path("/etc/grapnel/server.toml")
    config.parent.mkdir(parents=True)
    key = f'\n[[keys]]\nname = "admin"\nsha256 = "{digest}"\nscopes = ["admin"]\n'
    example = (ROOT / "docker" / "server.toml.example").read_text(encoding="utf-8")
    config.write_text(example + key, encoding="utf-8")
    server = [*one(steps, "ENTRYPOINT").words(), *one(steps, "CMD").words()]
    ask = ["python", "-c", ASK]
    arrays = {"server": server, "health": command_of(one(steps, "HEALTHCHECK")), "ask": ask}
    defined = "\n".join(f"{name}={as_array(words)}" for name, words in arrays.items())
    output = layer.run(
        f"{defined}\n{SERVE}", user=one(steps, "USER").value, own_network=True, SECRET=secret, HOME="/data"
    )
    assert '"a"\n' in output
    assert "Traceback" not in output
