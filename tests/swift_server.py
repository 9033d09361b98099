"""OpenStack Swift behind its S3 interface, all four servers in one process and one folder: the S3 server of the tests.

Run by the Python that has Swift, which is not the tests': ``python swift_server.py FOLDER PORT BUCKET``. Prints the port.
"""

import sys
from pathlib import Path
from typing import Any, Final

import eventlet

eventlet.monkey_patch(os=False)

from eventlet import wsgi  # noqa: E402 (only after the patch)
from swift.common import utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.storage_policy import reload_storage_policies  # noqa: E402
from swift.common.swob import Request  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

CLUSTER: Final = """
[swift-hash]
swift_hash_path_prefix = tests
[storage-policy:0]
name = one
default = yes
"""
COMMON: Final = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
log_level = ERROR
conn_timeout = 30
node_timeout = 60
container_update_timeout = 60
"""
"""The time limits are those of a loaded machine: what comes too late would be missing in a listing."""
BEHIND: Final = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY: Final = """
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats bulk s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 30
node_timeout = 60
recoverable_node_timeout = 60
error_suppression_limit = 1000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_node = testing .admin
user_test_reader = reading
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


def app(folder: Path, name: str, said: str) -> Any:
    """Return what answers requests, configured so."""
    file = folder / f"{name}.conf"
    file.write_text(COMMON.format(folder=folder) + said, encoding="utf-8")
    return loadapp(str(file))


def main(folder: Path, port: int, bucket: str) -> None:
    """Serve until killed."""
    (folder / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text(CLUSTER, encoding="utf-8")
    utils.SWIFT_CONF_FILE = str(folder / "swift.conf")
    reload_storage_policies()
    utils.validate_configuration()
    doors = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in ("account", "container", "object")}
    for kind, door in doors.items():
        ring = RingBuilder(1, 1, 0)
        place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": door.getsockname()[1], "device": "disk"}
        ring.add_dev({"id": 0, "weight": 1, **place})
        ring.rebalance()
        ring.get_ring().save(str(folder / f"{kind}.ring.gz"))
    doors["proxy"] = eventlet.listen(("127.0.0.1", port))
    pool = eventlet.GreenPool()
    silent = (folder / "requests").open("w", encoding="utf-8")
    for kind, door in doors.items():
        pool.spawn(wsgi.server, door, app(folder, kind, PROXY if kind == "proxy" else BEHIND.format(kind=kind)), silent)
    bare = app(folder, "bare", BEHIND.format(kind="proxy") + "account_autocreate = true")
    made = Request.blank(f"/v1/AUTH_test/{bucket}", method="PUT").get_response(bare)
    assert made.is_success, made.status
    print(doors["proxy"].getsockname()[1], flush=True)  # noqa: T201 (its answer)
    pool.waitall()


main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3])
