"""A node that nobody can connect to, in a network namespace of its own, answers over its own connection."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_network import expert

pytest.importorskip("zenoh", reason="needs Zenoh: pip install 'manyminds[net]'")

SCRIPT = r"""
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
ip netns add inside
ip link add wan type veth peer name lan netns inside
ip address add 10.77.0.1/24 dev wan
ip link set wan up
ip -n inside address add 10.77.0.2/24 dev lan
ip -n inside link set lan up
ip -n inside link set lo up
ip netns exec inside nft -f - <<'RULES'
table inet wall {
  chain input {
    type filter hook input priority 0; policy accept;
    iifname "lan" tcp flags & (syn | ack) == syn drop
  }
}
RULES
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
ip netns exec inside "$PYTHON" -m manyminds.evals.speaker > "$FOLDER/inner" &
cd "$FOLDER/seed"
MANYMINDS_HOME=$PWD "$PYTHON" -m manyminds serve > ../seed.log 2>&1 &
until [ -s "$FOLDER/inner" ]; do sleep 0.1; done
cd "$FOLDER/hidden"
sed -i "s/:9999/:$(cat "$FOLDER/inner")/" manyminds.toml
MANYMINDS_HOME=$PWD ip netns exec inside "$PYTHON" -m manyminds serve > ../hidden.log 2>&1 &
cd "$FOLDER"
ask='{"model": "hidden", "messages": [{"role": "user", "content": "Where are you?"}]}'
for _ in $(seq 100); do
    if curl -sf -m 10 http://127.0.0.1:8811/v1/chat/completions -d "$ask" > answer.json; then break; fi
    sleep 0.3
done
curl -s -m 1 http://10.77.0.2:8812/health/live > /dev/null && echo reachable || echo hidden
cat answer.json
"""


def test_a_node_without_an_inbound_port_takes_part(tmp_path: Path) -> None:
    for program in ("unshare", "ip", "nft", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"the program `{program}` is not installed")
    tried = subprocess.run(["unshare", "-Urnm", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"there are no namespaces to be had here: {tried.stderr.strip()}")
    seed, hidden = tmp_path / "seed", tmp_path / "hidden"
    for folder, toml in (
        (seed, '[network]\nname = "seed"\nlisten = "tcp/10.77.0.1:7447"\n[server]\nport = 8811\n'),
        (
            hidden,
            '[network]\nname = "hidden"\njoin = ["tcp/10.77.0.1:7447"]\n[server]\nport = 8812\n'
            + expert("inner", "http://127.0.0.1:9999/v1")
            + 'model = "says-B-3-0"\n',
        ),
    ):
        folder.mkdir()
        (folder / "manyminds.toml").write_text(f'{toml}[local]\ntier = "none"\n')
    environ = os.environ | {"PYTHON": sys.executable, "FOLDER": str(tmp_path)}
    command = ["unshare", "-Urnm", "bash", "-c", SCRIPT]
    ended = subprocess.run(command, capture_output=True, env=environ, text=True, timeout=100)
    logs = ended.stderr + (tmp_path / "hidden.log").read_text() + (tmp_path / "seed.log").read_text()
    where, _, answer = ended.stdout.partition("\n")
    assert where == "hidden", logs
    reply = json.loads(answer)
    assert reply["choices"][0]["message"]["content"].startswith("B)"), logs
    (entry,) = reply["manyminds"]["panel"]
    assert (entry["expert"], entry["status"]) == ("hidden", "ok")
    assert "Traceback" not in logs
