"""Startup kits of NVFlare for the server, its administrator and each site, and the job that relays."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmofl.errors import ConfigError
from harmofl.utils.atomic_files import write_atomic
from harmofl.utils.lazy_imports import optional

VARIABLE = "HARMOFL_RELAY"
"""Environment variable with the file of the `RelayListener` of this host."""
KIT, JOB, ADMIN = "nvflare", "job", "admin"
"""Folders in those of the server and the sites: the startup kit, the job, and the administrator's kit."""
ADMINISTRATOR = "admin@harmofl.org"
_SERVER, _ORGANIZATION = "harmofl-server", "harmofl"
_PACKAGE = "harmofl.backends.nvflare"
_ALLOWED = [f"{_PACKAGE}.relay_job.Relay{part}" for part in ("Controller", "Executor")]
_GUARD = {"id": "command_guard", "path": f"{_PACKAGE}.site_guard.CommandGuard", "args": {}}
_RIGHTS = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": {
            **dict.fromkeys(("submit_job", "clone_job", "manage_job", "download_job", "view", "operate"), "any"),
            **dict.fromkeys(("byoc", "shell_commands"), "none"),
        }
    },
}
"""What NVFlare's administrator may do at the server and at each site: no code of a job's own, no shell commands."""
_BUILDERS = [
    ("workspace.WorkspaceBuilder", {"template_file": ["master_template.yml"]}),
    ("static_file.StaticFileBuilder", {"config_folder": "config", "scheme": "grpc"}),
    ("cert.CertBuilder", {"root_valid_days": 3650}),
    ("signature.SignatureBuilder", {}),
]


def provision(authority: Path, folders: Mapping[str, Path], server: Path, host: str, port: int) -> None:
    """Make the startup kits with their keys and certificates, and the job.

    Args:
        authority: folder for NVFlare's provisioning state, with the keys of the authority and of all kits.
        folders: folder of each site, by name; its kit is put in it.
        server: folder of the server; its kit, the administrator's and the job are put in it.
        host: name or address under which sites reach the server.
        port: port of the server; the administrator uses the same.

    Raises:
        ConfigError: if NVFlare is not installed or refuses the names.
    """
    party = {"org": _ORGANIZATION}
    project = {
        "api_version": 3,
        "name": "federation",
        "participants": [
            {
                "name": _SERVER,
                "type": "server",
                "fed_learn_port": port,
                "admin_port": port,
                "default_host": host,
                "host_names": [host],
                **party,
            },
            *({"name": name, "type": "client", **party} for name in folders),
            {"name": ADMINISTRATOR, "type": "admin", "role": "project_admin", **party},
        ],
        "builders": [{"path": f"nvflare.lighter.impl.{path}", "args": args} for path, args in _BUILDERS],
    }
    authority.mkdir(mode=0o700, exist_ok=True)
    file = authority / "project.yml"
    write_atomic(file, json.dumps(project, indent=1).encode())  # which is YAML too
    made = _made(authority)
    _place(made / _SERVER, server / KIT, _server_rules)
    _place(made / ADMINISTRATOR, server / ADMIN, None)
    for name, folder in folders.items():
        _place(made / name, folder / KIT, _site_rules)
    shutil.rmtree(made)
    write_job(server / JOB)


def _made(authority: Path) -> Path:
    """Make all kits and return their folder; what the authority made before stays as it is."""
    (authority / "federation").mkdir(mode=0o700, exist_ok=True)
    nvflare("provision", "-p", str(authority / "project.yml"), "-w", str(authority), "--force")
    (authority / "federation" / "state" / "cert.json").chmod(0o600)
    return max((authority / "federation").glob("prod_*"))


def renew(deployment: Path) -> list[str]:
    """Make new keys and certificates of the same authority for all kits of a deployment.

    Returns:
        A line for each kit with who must get it; until a party has its new one, the old one works.

    Raises:
        ConfigError: if NVFlare refuses.
    """
    authority = deployment / "authority"
    state = authority / "federation" / "state" / "cert.json"
    kept = {name: value for name, value in json.loads(state.read_text()).items() if name.startswith("root")}
    write_atomic(state, json.dumps(kept).encode())
    made, lines = _made(authority), []
    for party in sorted(made.iterdir()):
        folder = deployment / {_SERVER: f"server/{KIT}", ADMINISTRATOR: f"server/{ADMIN}"}.get(
            party.name, f"{party.name}/{KIT}"
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(folder / "startup", ignore_errors=True)
        shutil.copytree(party / "startup", folder / "startup")
        lines.append(f"{folder / 'startup'}: valid for 360 days; put it into that folder of its party, and start again")
    shutil.rmtree(made)
    return lines


def nvflare(*words: str) -> str:
    """Run NVFlare's command and return its output; raise ConfigError if it fails or is not installed."""
    optional("nvflare", "--engine nvflare", "nvflare")
    command = str(Path(sys.executable).parent / "nvflare")
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [command, *words], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": home}
        )
    if done.returncode:
        reason = " ".join((done.stdout + done.stderr).split())[-300:]
        raise ConfigError(f"nvflare {words[0]} must succeed, but says: {reason}")
    return done.stdout


def _place(made: Path, kit: Path, rules: Any) -> None:
    shutil.copytree(made, kit)
    kit.chmod(0o700)
    if rules is not None:
        resources = json.loads((kit / "local" / "resources.json.default").read_text())
        rules(resources)
        resources["class_allow_list"] = _ALLOWED
        (kit / "local" / "resources.json").write_text(json.dumps(resources, indent=1))
        (kit / "local" / "authorization.json").write_text(json.dumps(_RIGHTS, indent=1))


def _server_rules(resources: dict[str, Any]) -> None:
    """Miss sites soon, and look for jobs every second."""
    resources["servers"][0]["heart_beat_timeout"] = 20
    for part in resources["components"]:
        if part["id"] == "job_scheduler":
            part["args"] |= {"min_schedule_interval": 1.0, "max_schedule_interval": 2.0, "max_schedule_count": 10**6}


def keep_in(kit: Path) -> None:
    """Let the server keep its records in its kit, wherever that lies now, and not in one folder for a machine."""
    path = kit / "local" / "resources.json"
    resources = json.loads(path.read_text())
    state = kit.resolve() / "state"
    resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(state / "snapshots")
    for part in resources["components"]:
        if part["id"] == "job_manager":
            part["args"]["uri_root"] = str(state / "jobs")
    write_atomic(path, json.dumps(resources, indent=1).encode())


def _site_rules(resources: dict[str, Any]) -> None:
    """Send no logs to the server, refuse needless commands, and reserve no GPU for what only relays."""
    resources["allow_log_streaming"] = False
    resources["components"] = [part for part in resources["components"] if part["id"] != "site_log_streamer"]
    resources["components"].append(_GUARD)
    for part in resources["components"]:
        if part["id"] == "resource_manager":
            part["args"] = {**part["args"], "num_of_gpus": 0, "mem_per_gpu_in_GiB": 0}


def write_job(folder: Path) -> None:
    """Write the job that relays, which `nvflare job submit` takes; it holds names of installed classes and no code."""
    from nvflare.job_config.api import FedJob

    from harmofl.backends.nvflare.relay_job import RelayController, RelayExecutor

    job = FedJob(name="harmofl", min_clients=1)
    job.set_app_packages(["harmofl"])
    job.to_server(RelayController())
    job.to_clients(RelayExecutor(), tasks=["*"])
    job.to_server(
        {"dead_client_grace_period": 1.0, "dead_client_check_lead_time": 1.0, "server": {"task_request_interval": 0.1}}
    )
    job.to_clients(
        {
            "default_task_fetch_interval": 0.1,
            "job_heartbeat_interval": 2.0,
            "get_task_timeout": 20.0,
            "task_check_interval": 1.0,
        }
    )
    with tempfile.TemporaryDirectory() as made:
        job.export_job(made)
        shutil.copytree(Path(made) / "harmofl", folder)
