"""The words that the node and the command on the host share: roles, labels, ports, paths."""

from __future__ import annotations

TYPE_CHECKING = False  # supervisord's process imports this: typing would cost every node a MiB
if TYPE_CHECKING:
    from typing import Final, Literal, TypeAlias

    Role: TypeAlias = Literal["master", "submit", "execute"]
else:
    Role = str

ROLES: Final[tuple[Role, ...]] = ("master", "submit", "execute")

#: The letter with which `docker run IMAGE` chooses each role.
ROLE_FLAG: Final[dict[Role, str]] = {"master": "-m", "submit": "-s", "execute": "-e"}

#: What an identity of each role begins with: a certificate's CN, and so HTCondor's ALLOW_* lists.
IDENTITY_PREFIX: Final[dict[Role, str]] = {"master": "cm-", "submit": "ap-", "execute": "exec-"}

#: May read the collector, nothing else; its key is readable to every user of an access point.
READER_IDENTITY: Final = "reader"

DEFAULT_POOL: Final = "roost"

LABEL_POOL: Final = "roost.pool"
LABEL_ROLE: Final = "roost.role"
LABEL_GROUP: Final = "roost.group"
LABEL_SPEC: Final = "roost.spec"

#: The one TCP port that a pool needs (HTCondor's shared port).
CONDOR_PORT: Final = 9618
#: Where the master admits nodes that were started by hand.
ADMIT_PORT: Final = 9619

#: `UID:GID` of HTCondor's user in every image; install.sh makes it.
CONDOR_USER: Final = "100:102"

#: A node's identity; on the master also the pool's certificate authority.
STATE_DIR: Final = "/var/lib/roost"
#: HTCondor's SPOOL: the job queue and the jobs' spooled files, on the access point.
SPOOL_DIR: Final = "/var/spool/condor"
#: The homes of an access point's users: where their jobs' files come from and go to.
HOME_DIR: Final = "/home"
LOG_DIR: Final = "/var/log/condor"
EXECUTE_DIR: Final = "/var/lib/condor/execute"
#: What starts jobs in a pool with `data:`.
JOB_WRAPPER: Final = "/usr/lib/roost/job-wrapper"
#: Where an executor has the directories of its machine that jobs may mount, by their names.
BIND_DIR: Final = "/srv/data"
#: The startd's own record of the jobs that ended, on an executor.
HISTORY: Final = f"{LOG_DIR}/startd_history"

#: HoldReasonSubCode of the pool's own holds: the job was killed; it used too much of something
#: (these two are HTCondor's own numbers for that).
HOLD_KILLED: Final = 137
HOLD_DATA: Final = 138
HOLD_MEMORY: Final = 102
HOLD_DISK: Final = 104

#: What an access point says when it has no room for more jobs.
SPOOL_FULL: Final = (
    "the spool of this access point is full, so it takes no more jobs; free some space on its "
    "volume, or remove jobs that are done with"
)

#: Files in STATE_DIR.
CA_CERT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
NODE_CERT: Final = "node.crt"
NODE_KEY: Final = "node.key"
READER_CERT: Final = "reader.crt"
READER_KEY: Final = "reader.key"
#: The host name in the master's certificate, where it differs from what the node was told to call.
MASTER_NAME: Final = "master.name"
#: The masters' names, where a node was told of others than those that it was started with.
MASTERS: Final = "masters"
#: When this node asks for its next certificate, in Unix time.
DUE: Final = "due"
#: What the master announced last: who is revoked, and which authorities count.
NOTICE: Final = "notice"
#: There when this node is revoked, and says so.
REVOKED: Final = "revoked"
#: How long the master's certificates are good, in seconds.
LIFETIME: Final = "lifetime"
#: How many executors the pool has, as the master was told last.
EXECUTORS: Final = "executors"
#: The master's folder of its users' usage and priorities.
ACCOUNTS: Final = "accounts"
#: HTCondor configuration read after the role's own (`config:` in the pool file).
EXTRA_CONFIG: Final = "extra.conf"
#: What jobs may mount (`data:` in the pool file): see roost_node/data/entries.py.
DATA: Final = "data.json"

#: How long, in seconds, a running job and its access point may be out of touch before the job runs
#: again elsewhere: as short as lets a network be cut for half a minute without cost.
LEASE: Final = 60
MIN_LEASE: Final = 30
MAX_LEASE: Final = 7 * 86400

#: In the ads of an executor's slots while it drains.
DRAINING: Final = "RoostDraining"
#: How long, in seconds, a job may take to end when its node is told to stop: `docker stop` waits
#: for 10 s in all.
VACATE: Final = 6
MAX_VACATE: Final = 86400

#: Where the master leaves its notice, below STATE_DIR; everybody else asks for it.
MASTERS_NOTICE: Final = "admit/notice"
#: A notice that was fetched and has not been judged yet.
NEW_NOTICE: Final = "/run/roost/notice.new"
#: There while supervisord runs, with its number.
SUPERVISED: Final = "/run/roost/supervisord.pid"

#: Exit codes of the container.
EXIT_STOPPED: Final = 0
EXIT_BAD_INPUT: Final = 2
EXIT_PAYLOAD_FAILED: Final = 3


def pool_domain(pool: str) -> str:
    """The pool's UID_DOMAIN and TRUST_DOMAIN: the same on every node, never a host's name."""
    return f"{pool}.internal"


def second_master(pool: str) -> str:
    """The name of a pool's second master, if it has one: the first one's, and a number."""
    return f"{pool}-master-2"


def identity(role: Role, node: str) -> str:
    """The CN of a node's certificate: its role's prefix and its host name."""
    return f"{IDENTITY_PREFIX[role]}{node}"
