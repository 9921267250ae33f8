"""The job or app that relays, for a network that runs NVFlare or Flower already, and a page for its administrator."""

from pathlib import Path

from harmofl.deployment.folders import NVFLARE, RELAY, ServerFolder

PAGE = "administrator.md"
_NVFLARE = """# For the administrator of the NVFlare network

The job in `server/job` holds names of installed classes and no code. It only passes bytes between `harmofl deploy
serve`, beside NVFlare's server, and `harmofl deploy join`, beside each NVFlare client.

1. Install `harmofl[nvflare]` where NVFlare's server and clients run. The clients must have the names {sites}.
2. If `local/resources.json` has a `class_allow_list`, add `harmofl.backends.nvflare.relay_job.` to it, at the server
   and at each site.
3. Start NVFlare's server with the environment variable `HARMOFL_RELAY` set to the absolute path of `server/{relay}`,
   and each client with that of its own `NAME/{relay}`: on the machine and under the account of `serve` or `join`.
4. At the server `harmofl deploy serve server`, at each site `harmofl deploy join NAME --data IMAGES`.
5. Submit the job with your administrator's kit: `nvflare job submit -j server/job --startup-kit KIT/startup`. If it
   ends before the federation does, or a site has come back after the job began, submit it again: training goes on.
"""
_FLOWER = """# For the administrator of the Flower network

The app in `server/app` only passes bytes between `harmofl deploy serve`, beside Flower's ServerApp, and `harmofl deploy
join`, beside each SuperNode. It installs nothing.

1. Install `harmofl[flower]` where SuperLink and SuperNodes run. The SuperLink must run with `--enable-supernode-auth`:
   a site is known by the public key of its SuperNode. The sites are {sites}.
2. Register `server/supernodes/NAME.pub` with `flwr supernode register`, and start the SuperNode of that site with
   `--auth-supernode-private-key NAME/supernode_key`. For one that is registered already, put its own public key, in
   PEM, into `server/keys.json` instead.
3. Start each SuperNode with `--node-config 'relay="/absolute/path/of/NAME/{relay}"'`, on the machine and under the
   account of `join`; the SuperLink on those of `serve`.
4. At the server `harmofl deploy serve server`, at each site `harmofl deploy join NAME --data IMAGES`.
5. Start the run, again if it ends before the federation does:

       flwr run server/app --run-config 'relay="/absolute/path/of/server/{relay}" keys="/absolute/path/of/server/keys.json"'
"""  # noqa: E501


def write_for_network(out: Path) -> None:
    """Write the job or app into the server's folder, and the page beside it.

    Args:
        out: the folder with those of the server and the sites.
    """
    server = out / "server"
    place = ServerFolder.open(server)
    text = _NVFLARE if place.engine == NVFLARE else _FLOWER
    (out / PAGE).write_text(text.format(sites=", ".join(place.keys), relay=RELAY), encoding="utf-8")
    if place.engine == NVFLARE:
        from harmofl.backends.nvflare.kits import write_job

        write_job(server / "job")
        return
    from harmofl.backends.flower.superlink import write_app, write_keys, write_supernode_key

    write_app(server / "app")
    write_keys(server / "supernodes", server / "keys.json", place.keys)
    for name in place.keys:
        write_supernode_key(out / name / "supernode_key", (out / name / "key.pem").read_bytes())
