"""The example files: accelerate reads them, the batch script parses, the servers listen to their own machine only."""

import subprocess

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.modules import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(("name", "machines", "processes"), [("one-node", 1, 8), ("two-nodes", 2, 16)])
def test_accelerate_reads_a_launch_file(name: str, machines: int, processes: int) -> None:
    settings = load_config_from_file(str(EXAMPLES / f"accelerate-{name}.yaml"))
    assert (settings.num_machines, settings.num_processes) == (machines, processes)
    assert settings.distributed_type == "MULTI_GPU" and settings.use_cpu is False


def test_the_batch_script_is_sound_and_starts_a_stage_that_exists() -> None:
    script = EXAMPLES / "generate.sbatch"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    words = script.read_text(encoding="utf-8").replace("\\\n", " ").split()
    named = [word for word in words if word.startswith(("stages/", "examples/accelerate"))]
    assert len(named) == 2 and all((ROOT / word).is_file() for word in named)


def test_ports_are_this_machines_own_no_password_is_written_down_and_mlflow_is_the_tested_one() -> None:
    services = yaml.safe_load((EXAMPLES / "servers.yaml").read_text(encoding="utf-8"))["services"]
    ports = [str(port) for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 3 and all(port.startswith("127.0.0.1:") for port in ports)
    given = [pair for service in services.values() for pair in service.get("environment", {}).items()]
    secrets = [value for name, value in given if "PASSWORD" in name or "SECRET" in name]
    assert len(secrets) == 5 and all(str(secret).startswith("${") for secret in secrets)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    (pin,) = (line for line in pins if line.startswith("mlflow=="))
    assert pin in str(services["mlflow"]["command"])
