"""Role and settings → HTCondor's configuration, as text. Pure: nothing here touches the node.

The text explains itself: an administrator reads it inside the container, without this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost_node import mutual_tls, sick
from roost_node.data.chirp import PROBLEM
from roost_node.settings import Settings
from roost_node.space import BALLAST
from roost_node.vocab import (
    ACCOUNTS,
    CA_CERT,
    EXECUTE_DIR,
    HISTORY,
    HOLD_DATA,
    HOLD_DISK,
    HOLD_KILLED,
    HOLD_MEMORY,
    IDENTITY_PREFIX,
    JOB_WRAPPER,
    LOG_DIR,
    NODE_CERT,
    NODE_KEY,
    READER_CERT,
    READER_IDENTITY,
    READER_KEY,
    SPOOL_DIR,
    Role,
    identity,
    pool_domain,
)

DAEMONS: Final[dict[Role, str]] = {
    "master": "MASTER COLLECTOR NEGOTIATOR",
    "submit": "MASTER SCHEDD",
    "execute": "MASTER STARTD",
}

#: HTCondor's own defaults; each is lowered to what the container may open.
_DESCRIPTORS: Final = {
    "MAX_FILE_DESCRIPTORS": 10240,
    "COLLECTOR_MAX_FILE_DESCRIPTORS": 10240,
    "SHARED_PORT_MAX_FILE_DESCRIPTORS": 4096,
    "SCHEDD_MAX_FILE_DESCRIPTORS": 4096,
}

#: Accounts that jobs run as, one a dynamic slot; made in the image.
SLOT_USERS: Final = 128


@dataclass(frozen=True)
class Facts:
    """What the node found out before it writes its configuration."""

    pool: str
    """The pool's name, from its CA."""
    master_name: str
    """The host name in the master's certificate."""
    cpus: int
    memory: int
    """In MiB."""
    descriptors: int
    """The hard limit of open files."""
    offered: tuple[str, ...] | None = None
    """What jobs may ask for at this access point, or can mount on this executor; None where the
    pool has no `data:`."""
    data_problem: str = ""
    """Why this executor cannot mount all that the pool offers."""
    plugins: tuple[Path, ...] = ()
    """The executor's file-transfer plugins beside HTCondor's."""
    tokens: str = ""
    """The access point's configuration for its users' tokens, where jobs need some."""


def configuration(settings: Settings, facts: Facts) -> str:
    """All of the node's HTCondor configuration, except what the user adds with -c."""
    sections = [_common(settings, facts), _security(settings, facts), _PACE]
    sections.append({"master": _master, "submit": _submit, "execute": _execute}[settings.role](
        settings, facts
    ))  # fmt: skip
    return "\n".join(sections)


def _common(settings: Settings, facts: Facts) -> str:
    domain = pool_domain(facts.pool)
    daemons = DAEMONS[settings.role]
    if settings.role == "master" and settings.second:
        daemons += " HAD REPLICATION"
    master = settings.master or settings.node
    capped = "\n".join(
        f"{knob} = {min(default, facts.descriptors)}" for knob, default in _DESCRIPTORS.items()
    )
    optional = "".join(
        f"{knob} = {value}\n"
        for knob, value in (
            ("CCB_ADDRESS", settings.ccb_address),
            ("PRIVATE_NETWORK_NAME", settings.private_network),
            ("TCP_FORWARDING_HOST", settings.forward),
        )
        if value
    )
    return f"""\
# Written by roost-node at every start: change it with -c, or `config:` in the pool file.

# --- who this is ---------------------------------------------------------------------------
DAEMON_LIST = {daemons}
CONDOR_HOST = {master}
# COLLECTOR_HOST stands in 20-master.conf: it follows the master from address to address.
# The name in this node's certificate, in its ads and in its addresses: one and the same.
NETWORK_HOSTNAME = {settings.node}
# The pool's, never a host's: identities stay valid wherever a node runs.
UID_DOMAIN = {domain}
TRUST_DOMAIN = {domain}
SPOOL = {SPOOL_DIR}
EXECUTE = {EXECUTE_DIR}
LOG = {LOG_DIR}
{optional}
# --- one port, and no more files than the container may open ---------------------------------
USE_SHARED_PORT = True
SHARED_PORT_PORT = {settings.port}
# HTCondor's daemons die when a limit asks for more than the container's.
{capped}
# HTCondor 25 ends a connection whose other end has vanished without a word 25 s after this; with
# less, an outage that a job survives would end it. (23.9.6 was seen to keep one for minutes that
# had something to send.) Stock: 360.
TCP_KEEPALIVE_INTERVAL = 35

# --- logs: roost-node relays them to stdout; here they rotate ---------------------------------
MAX_DEFAULT_LOG = 10 Mb
MAX_NUM_DEFAULT_LOG = 1
# A container's daemons write no core files: nobody would find them.
CREATE_CORE_FILES = False
# No mail leaves a container.
CONDOR_ADMIN =
MAIL =
"""


def _security(settings: Settings, facts: Facts) -> str:
    domain = pool_domain(facts.pool)
    state = settings.state_dir
    me = f"{identity(settings.role, settings.node)}@{domain}"
    administered = "" if settings.role == "master" else _NOT_FROM_AFAR
    return f"""\
# --- mutual TLS between all nodes and users; nothing else is believed --------------------------
{mutual_tls.configuration(state / CA_CERT, state / NODE_CERT, state / NODE_KEY)}\
AUTH_SSL_SERVER_CAFILE = {state / CA_CERT}
AUTH_SSL_SERVER_CERTFILE = {state / NODE_CERT}
AUTH_SSL_SERVER_KEYFILE = {state / NODE_KEY}
AUTH_SSL_SERVER_USE_DEFAULT_CAS = False
AUTH_SSL_REQUIRE_CLIENT_CERTIFICATE = True
AUTH_SSL_REQUIRE_CLIENT_MAPPING = True
COLLECTOR_BOOTSTRAP_SSL_CERTIFICATE = False
CERTIFICATE_MAPFILE = {MAPFILE}
SEC_ENABLE_TOKEN_REQUEST = False
SEC_TOKEN_SYSTEM_DIRECTORY =
# Who may do what; `condor@family` are the daemons of this very container.
ALLOW_READ = *@{domain}
ALLOW_WRITE =
ALLOW_CONFIG =
ALLOW_DAEMON = condor@family condor@{domain} {me}
ALLOW_NEGOTIATOR = condor@family
ALLOW_ADMINISTRATOR = condor@family {me}
ALLOW_CLIENT = *@{domain} condor@family condor@parent condor@child *@matchsession
# A daemon that is asked by FS, or with the session that the collector handed out for
# administration (condor_userprio -setfactor), shows no name; by SSL it still must show its own.
TOOL.ALLOW_CLIENT = *
ALLOW_ADVERTISE_MASTER =
ALLOW_ADVERTISE_SCHEDD =
ALLOW_ADVERTISE_STARTD =
# A session outlives the certificate that began it by so much at most. Stock: a day, 60 s for tools.
SEC_DEFAULT_SESSION_DURATION = 3600
TOOL.SEC_DEFAULT_SESSION_DURATION = 60
SUBMIT.SEC_DEFAULT_SESSION_DURATION = 60
{administered}\
{_public_read(settings.role) if settings.public_read else ""}\
# Every user may read with the reader's identity; the node's own key is root's alone.
"""


_NOT_FROM_AFAR: Final = """\
# Stock gives the collector a session in which whoever administers it administers this node, too.
SEC_ENABLE_REMOTE_ADMINISTRATION = False
"""


def _public_read(role: Role) -> str:
    """Who asks for no identity gets none, and what it reads is not encrypted; nobody else loses."""
    daemon = {"master": "COLLECTOR", "submit": "SCHEDD"}[role]
    return f"""\
# Everybody may read, without a certificate and in the clear; that alone.
{daemon}.SEC_READ_AUTHENTICATION = OPTIONAL
{daemon}.SEC_READ_ENCRYPTION = OPTIONAL
{daemon}.SEC_READ_INTEGRITY = OPTIONAL
{daemon}.ALLOW_READ = *
"""


#: Where roost-node writes the map from certificate to HTCondor identity.
MAPFILE: Final = "/run/roost/roost.map"


def mapfile(pool: str) -> str:
    """CERTIFICATE_MAPFILE: the CN is the identity, in the pool's domain.

    Neither quotes nor slashes around the expression: with them nothing maps (tried).
    """
    return rf"SSL ^/CN=([A-Za-z0-9_.-]+)$ \1@{pool_domain(pool)}" + "\n"


_PACE = """\
# --- pace: a small pool answers at once --------------------------------------------------------
# condor_master would sleep 1 s at each start to tune the kernel, which a container cannot.
ENABLE_KERNEL_TUNING = False
# It starts a daemon that died after 2, 3, 5 … 60 s (stock: 10, 11, 13 … 3600).
MASTER_BACKOFF_CONSTANT = 1
MASTER_BACKOFF_CEILING = 60
# Changes of state are sent at once in any case; this is for what fades: a master that came back
# knows every slot after one interval. Stock: 300.
UPDATE_INTERVAL = 20
MASTER_UPDATE_INTERVAL = 60
# An ad that three updates have missed goes, and with it the slots of an executor that died: nobody
# is matched with them any more. Stock: 900, whatever the interval.
STARTD_ATTRS = $(STARTD_ATTRS) ClassAdLifetime
STARTD.ClassAdLifetime = 3 * $(UPDATE_INTERVAL)
MASTER_ATTRS = $(MASTER_ATTRS) ClassAdLifetime
MASTER.ClassAdLifetime = 3 * $(MASTER_UPDATE_INTERVAL)
SCHEDD_ATTRS = $(SCHEDD_ATTRS) ClassAdLifetime
SCHEDD.ClassAdLifetime = 3 * $(SCHEDD_INTERVAL) + 45
"""


def _master(settings: Settings, facts: Facts) -> str:
    domain = pool_domain(facts.pool)
    me = f"{identity(settings.role, settings.node)}@{domain}"
    return f"""\
# --- central manager: who may advertise what ---------------------------------------------------
# Root here takes back the ads of those who were revoked.
COLLECTOR.ALLOW_ADVERTISE_STARTD = exec-*@{domain} {me}
COLLECTOR.ALLOW_ADVERTISE_SCHEDD = ap-*@{domain} {me}
COLLECTOR.ALLOW_ADVERTISE_MASTER = exec-*@{domain} ap-*@{domain} condor@family {me}
# A node speaks for itself alone: what it advertises bears the host name in its certificate.
COLLECTOR_REQUIREMENTS = {_own_name(domain)}
# What that refuses stands in the log.
COLLECTOR_DEBUG = $(COLLECTOR_DEBUG) D_MACHINE
# Access points tell the negotiator that jobs wait.
NEGOTIATOR.ALLOW_ADVERTISE_SCHEDD = ap-*@{domain}
# How fast it matches stands in 30-pace.conf: that changes with the size of the pool.
# A collector that was restarted knows its negotiator again after this, and the node is healthy
# again. Stock: 300.
NEGOTIATOR_UPDATE_INTERVAL = 20
# The collector looks so often for ads that are too old; those that do not say for how long they
# are good, it keeps for so long. Its own is one of them.
CLASSAD_LIFETIME = 60
COLLECTOR_UPDATE_INTERVAL = 20
# Until it looks, a slot whose ad is overdue is given to no job: its executor is dead or cut off.
NEGOTIATOR_SLOT_CONSTRAINT = (time() - LastHeardFrom <= ClassAdLifetime) =!= False
# An access point that vanished, or that waits for the negotiator while the negotiator waits for it,
# holds everybody up for this: less than an access point waits (20 s). Stock: 30.
NEGOTIATOR_TIMEOUT = 10
# Who used how much, and so the users' priorities, outlives the container with the pool's identity.
ACCOUNTANT_DATABASE_FILE = {settings.state_dir / ACCOUNTS / "Accountantnew.log"}
# Without jobs there is nothing to track here: ProcD's place is with the jobs.
USE_PROCD = False
""" + (_two_masters(settings, facts) if settings.second else "")


def _own_name(domain: str) -> str:
    """True of an ad whose name is its sender's: `slot1@NODE`, `NODE`, or a submitter of that node.

    Masters are believed: they hold the CA's key, or were named by the one that does.
    """

    def host(attribute: str) -> str:
        parts = f'split({attribute}, "@")'
        return f"{parts}[size({parts}) - 1]"

    def sent_by(prefix: str, attribute: str) -> str:
        return f'AuthenticatedIdentity == strcat("{prefix}", {host(attribute)}, "@{domain}")'

    execute, submit = IDENTITY_PREFIX["execute"], IDENTITY_PREFIX["submit"]
    return " || \\\n  ".join(
        (
            # the collector's own, which no connection brought
            '(AuthenticatedIdentity =?= undefined && MyType == "Collector")',
            'AuthenticatedIdentity =?= "condor@family"',
            f'regexp("^{IDENTITY_PREFIX["master"]}", AuthenticatedIdentity)',
            f"({sent_by(execute, 'Name')} && Machine == {host('Name')})",
            sent_by(submit, "Name"),
            f'({host("Name")} == "{domain}" && {sent_by(submit, "ScheddName")})',
        )
    )


def _two_masters(settings: Settings, facts: Facts) -> str:
    domain = pool_domain(facts.pool)
    peer = f"{identity('master', settings.second)}@{domain}"
    mine = f"condor@family {identity('master', settings.node)}@{domain}"
    return f"""\
# --- two masters: one negotiator, on either ------------------------------------------------------
# Both collectors know everything; condor_had starts the negotiator on one of the masters, and
# condor_replication copies what users have used. Where they are stands in 20-master.conf.
HAD_USE_SHARED_PORT = True
HAD_CONTROLLEE = NEGOTIATOR
MASTER_NEGOTIATOR_CONTROLLER = HAD
HAD_USE_REPLICATION = True
STATE_FILE = $(ACCOUNTANT_DATABASE_FILE)
# A master that came back stays in waiting: to change places would cost a pause for nothing.
HAD.HAD_USE_PRIMARY = False
# What all of condor_had's times follow from: it takes over 20 to 30 s after the other was last
# heard. Stock: 5, and 100 to 150 s.
HAD_CONNECTION_TIMEOUT = 1
# A negotiator that was killed is forgotten when another speaks: else access points would tell the
# dead one of their jobs. Stock: remembered for 15 minutes.
COLLECTOR_ALLOW_ONLY_ONE_NEGOTIATOR = True
# How much of the users' use may be forgotten, in seconds. Stock: 300.
REPLICATION_INTERVAL = 60
HAD_UPDATE_INTERVAL = 60
# Should condor_had itself die, the other takes over before it is back.
MASTER_HAD_BACKOFF_CONSTANT = 60
# The other master tells this collector of its negotiator and of itself, and speaks to these two.
COLLECTOR.ALLOW_NEGOTIATOR = condor@family {peer}
COLLECTOR.ALLOW_ADVERTISE_MASTER = $(COLLECTOR.ALLOW_ADVERTISE_MASTER) {peer}
HAD.ALLOW_DAEMON = {mine} {peer}
REPLICATION.ALLOW_DAEMON = {mine} {peer}
# They call each other by address, which no certificate holds: that it is a master of this pool, and
# which, is checked instead.
HAD.SSL_SKIP_HOST_CHECK = True
REPLICATION.SSL_SKIP_HOST_CHECK = True
TRANSFERER.SSL_SKIP_HOST_CHECK = True
HAD.ALLOW_CLIENT = {mine} condor@parent condor@child {peer}
REPLICATION.ALLOW_CLIENT = {mine} condor@parent condor@child {peer}
TRANSFERER.ALLOW_CLIENT = {mine} condor@parent condor@child {peer}
"""


def _submit(settings: Settings, facts: Facts) -> str:
    domain = pool_domain(facts.pool)
    state = settings.state_dir
    reader = "\n".join(
        f"{tool}.SEC_CLIENT_AUTHENTICATION_METHODS = FS, SSL\n"
        f"{tool}.AUTH_SSL_CLIENT_CERTFILE = {state / READER_CERT}\n"
        f"{tool}.AUTH_SSL_CLIENT_KEYFILE = {state / READER_KEY}"
        for tool in ("TOOL", "SUBMIT")
    )
    return f"""\
# --- access point ------------------------------------------------------------------------------
SCHEDD_ARGS = -sock schedd
# Users write, with their own certificate or, inside this container, as the account they are:
# FS proves a local account to the schedd, and to nothing else.
ALLOW_WRITE = *@{domain}
DENY_WRITE = exec-*@{domain} ap-*@{domain} cm-*@{domain} {READER_IDENTITY}@{domain}
ALLOW_NEGOTIATOR = cm-*@{domain}
SCHEDD.SEC_READ_AUTHENTICATION_METHODS = FS, SSL
SCHEDD.SEC_WRITE_AUTHENTICATION_METHODS = FS, SSL
# Tools run by users cannot read the node's key: the collector they read as `{READER_IDENTITY}`.
{reader}
SUBMIT.ALLOW_CLIENT = *
# How long a running job and its access point may be out of touch: whoever finds the other gone
# waits for this, then the job runs again. Stock: 2400. A job may ask for less (job_lease_duration),
# not for more: an executor that died holds its jobs for so long.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) RoostLease
JOB_TRANSFORM_RoostLease @=end
   REQUIREMENTS (JobLeaseDuration >= 20 && JobLeaseDuration <= {settings.lease}) =!= true
   SET JobLeaseDuration {settings.lease}
@end
# The executor of a running job asks for its access point every third of the lease, and both keep
# to it. Stock trusts the job's connection instead: that it was cut was not noticed for minutes.
STARTER_HANDLES_ALIVES = False
# A slot whose executor is cut off may be given out until its ad is gone: so long is it asked then.
# Stock: 45.
STARTD_CONTACT_TIMEOUT = 20
# From one try to find a running job again to the next. Stock: up to 300.
RECONNECT_BACKOFF_CEILING = 20
# A submission is told to the negotiator at once (stock: at most every 5 s).
SCHEDD_MIN_INTERVAL = 0
# How long the schedd and the negotiator remember each other: see roost_node/greet.py. Stock: 3600.
SEC_DEFAULT_SESSION_LEASE = 86400
# While it shakes hands with a negotiator the schedd does nothing else. One that calls it in that
# moment waits for it, too: both stood still for 20 s, and with every new try again (seen: 5 min).
SCHEDD.SEC_CLIENT_AUTHENTICATION_TIMEOUT = 5
# That a job has ended is on the volume before anybody can know it: a schedd that is killed and has
# forgotten it ends the job once more, and holds it, because its files have been fetched and removed
# meanwhile. The queue is written at once for that, not synced. Stock: 5.
SCHEDD_JOB_QUEUE_LOG_FLUSH_DELAY = 0
# At each submission it asks the collector where the negotiator is, and does nothing else meanwhile:
# also where a master was that has moved. Stock: 60.
SCHEDD.QUERY_TIMEOUT = 5
# A second user's jobs wait for this where another's wait for a slot already: the submitters' ads
# are sent anew then. Stock: 300.
SCHEDD_INTERVAL = 5
# Shadows need no tracking: ProcD's place is with the jobs, and it costs CPU at each of them.
USE_PROCD = False
{_KILLED}{_wishes(facts)}{facts.tokens}{_SPACE}"""


#: A job's killed process reports one of these: the first to HTCondor, the second by way of a shell.
_WAS_KILLED: Final = (
    "(ExitBySignal =?= True && ExitSignal =?= 9) || (ExitBySignal =!= True && ExitCode =?= 137)"
)
_KILLED_REASON: Final = (
    'strcat("it was killed (signal 9) on ", LastRemoteHost ?: RemoteHost ?: "its executor",'
    ' ": the memory there was used up, or somebody killed it; it was seen to use ",'
    ' MemoryUsage ?: "an unknown number of", " MiB of memory and had asked for ",'
    ' RequestMemory ?: "no", " MiB")'
)
_KILLED: Final = f"""\
# --- a job that was killed has not completed -----------------------------------------------------
# The kernel kills what uses the container's memory up, and HTCondor would call that a job's end.
# Such a job is held; a job that has retries left (max_retries) is retried first. One that kills
# itself and means it says so with `+RoostKeepKilled = True`.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES:) RoostKilled
JOB_TRANSFORM_RoostKilled @=end
  REQUIREMENTS JobUniverse == 5 && RoostKeepKilled =!= True
  RENAME OnExitHold RoostOnExitHold
  RENAME OnExitHoldReason RoostOnExitHoldReason
  RENAME OnExitHoldSubCode RoostOnExitHoldSubCode
  SET RoostKilled ({_WAS_KILLED}) && OnExitRemove =!= False
  SET OnExitHold RoostKilled || (RoostOnExitHold ?: False)
  SET OnExitHoldReason ifThenElse(RoostKilled, {_KILLED_REASON}, \
RoostOnExitHoldReason ?: "its own on_exit_hold asked for this")
  SET OnExitHoldSubCode ifThenElse(RoostKilled, {HOLD_KILLED}, RoostOnExitHoldSubCode ?: 0)
@end
"""
_SPACE: Final = f"""\
# --- a spool that is nearly full takes no more jobs ----------------------------------------------
# A schedd that cannot write its queue ends. What is left is for the jobs that are there already.
# The requirement itself stands in 40-space.conf.
SUBMIT_REQUIREMENT_NAMES = $(SUBMIT_REQUIREMENT_NAMES:) RoostSpace
# What roost-node keeps there is no rubbish.
VALID_SPOOL_FILES = $(VALID_SPOOL_FILES), {BALLAST}
# One that ended nevertheless is back soon after there is space again. Stock: 3600.
MASTER_SCHEDD_BACKOFF_CEILING = 10
"""


def _execute(settings: Settings, facts: Facts) -> str:
    accounts = "\n".join(
        f"SLOT1_{n}_USER = slot1_{n}" for n in range(1, min(facts.cpus, SLOT_USERS) + 1)
    )
    return f"""\
# --- execution point ---------------------------------------------------------------------------
STARTD_ARGS = -sock startd
NUM_CPUS = {facts.cpus}
MEMORY = {facts.memory}
use FEATURE:PartitionableSlot
# A job runs as its slot's own account: never as root, never as the owner of this node's key.
STARTER_ALLOW_RUNAS_OWNER = False
DEDICATED_EXECUTE_ACCOUNT_REGEXP = slot1_[0-9]+
{accounts}
# A collector that was restarted knows no sessions, and the ad with which one is tried is lost: this
# startd forgets its own first. As long as its connection lasts, none is needed. Stock: 3600.
STARTD.SEC_DEFAULT_SESSION_LEASE = 10
# How long a job may take to end when the node is told to stop: --vacate. `docker stop` waits for
# 10 s in all, unless the container was made with a longer --stop-timeout.
MachineMaxVacateTime = {settings.vacate}
# HTCondor 25's own says `MappingMethod ?: "" != "Copy"`, which HTCondor 23 reads otherwise: a
# master of that release would match nothing with an executor of this one. 25 drops parentheses.
CATALOG_SPACE = ifThenElse(MappingMethod =?= "Copy", 0, $(SUM_OF_CATALOGS:0))
# A job that must end at once is given so long, then it is killed with its starter: that one hears
# nothing while it waits for an access point that is cut off. Stock: 30.
KILLING_TIMEOUT = 10
# From 25 on, what a running job and its access point hear of each other is all that both go by.
# The access point asks for the executor after three reports that it has missed. The job's side
# waits for the answer to a report for so long, then the lease counts. It tells the startd of itself
# 30 s after its start, and does nothing else for 7 min if that fails, as on a node that has just
# lost its address: at once is before any job runs. With stock's 450, 300 and 30 a job that was cut
# off for good ran elsewhere after 131 s, and went on for over 5 min; with these it was 84 and 75 s.
if version >= 25.0.0
STARTER_UPDATE_INTERVAL_MAX = 15
STARTER_UPLOAD_TIMEOUT = 60
STARTER_FIRST_CHILDALIVE_DELAY = 0
endif
# Nothing measured at the start is used by anything here.
RunBenchmarks = False
# The startd runs every plugin before it is ready: those written in Python (box, gdrive, onedrive)
# take 0.3 s of CPU each. Here: http, https, ftp, dav, davs, file, s3, gs and data.
FILETRANSFER_PLUGINS = $(LIBEXEC)/curl_plugin, $(LIBEXEC)/data_plugin
# The slots' ads wait for this one, a second at the start; nothing here reads it.
ENABLE_STARTD_DAEMON_AD = False
{_SICK}{_LIMITS}{_mounts(facts)}"""


def _mounts(facts: Facts) -> str:
    if facts.offered is None:
        return ""
    problem = facts.data_problem.replace("\\", "/").replace('"', "'")
    wrapper = f"USER_JOB_WRAPPER = {JOB_WRAPPER}\n" if facts.offered else ""
    plugins = "".join(f", {plugin}" for plugin in facts.plugins)
    return f"""\
# --- data: what jobs can mount here -------------------------------------------------------------
{wrapper}HasDataMounts = {bool(facts.offered)}
DataMountNames = "{",".join(facts.offered)}"
DataMountsProblem = "{problem}"
STARTD_ATTRS = $(STARTD_ATTRS) HasDataMounts DataMountNames DataMountsProblem
FILETRANSFER_PLUGINS = $(FILETRANSFER_PLUGINS){plugins}
"""


def _wishes(facts: Facts) -> str:
    """Jobs are matched with executors that can mount what they ask for."""
    offered = facts.offered or ()
    has = f"it has: {', '.join(offered)}" if offered else "it has none"
    # `lab:data:rw, https://host/x:web` → `lab, https_url`
    names = 'replaceAll(":[^,]*", replaceAll("://[^,]*", DataMounts ?: "", "_url"), "")'
    return f"""\
# --- data that jobs mount ------------------------------------------------------------------------
# A job runs where what it asks for can be mounted; what the pool has not is refused here.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES:) RoostMounts RoostMountsHold
JOB_TRANSFORM_RoostMounts @=end
  REQUIREMENTS DataMounts =!= undefined || PrivateMounts =?= True
  EVALSET RoostMounts {names}
  SET Requirements ($(MY.Requirements)) && TARGET.HasDataMounts =?= True && \
stringListSubsetMatch(RoostMounts, TARGET.DataMountNames)
@end
# A job whose data could not be mounted, or not be written, is held with the reason.
JOB_TRANSFORM_RoostMountsHold @=end
  REQUIREMENTS JobUniverse == 5
  RENAME OnExitHold RoostMountsOnExitHold
  RENAME OnExitHoldReason RoostMountsOnExitHoldReason
  RENAME OnExitHoldSubCode RoostMountsOnExitHoldSubCode
  SET OnExitHold {PROBLEM} =!= undefined || (RoostMountsOnExitHold ?: False)
  SET OnExitHoldReason ifThenElse({PROBLEM} =!= undefined, {PROBLEM}, \
RoostMountsOnExitHoldReason ?: "its own on_exit_hold asked for this")
  SET OnExitHoldSubCode ifThenElse({PROBLEM} =!= undefined, {HOLD_DATA}, \
RoostMountsOnExitHoldSubCode ?: 0)
@end
SUBMIT_REQUIREMENT_NAMES = $(SUBMIT_REQUIREMENT_NAMES:) RoostMounts
SUBMIT_REQUIREMENT_RoostMounts = DataMounts is undefined || \
  stringListSubsetMatch({names}, "{",".join(offered)}")
SUBMIT_REQUIREMENT_RoostMounts_REASON = strcat("DataMounts asks for ", DataMounts, \
  ", which this pool has not; {has}")
"""


_SICK: Final = f"""\
# --- a node that fails all its jobs takes no more ------------------------------------------------
# roost-node reads here how each job ended, and says so in the slots' ads (RoostEnds), for the other
# executors to compare: `cat` waits for it, which costs nothing. See roost_node/sick.py.
STARTD_HISTORY = {HISTORY}
# Stock: 20 MiB, and two older ones.
MAX_HISTORY_LOG = 2097152
MAX_HISTORY_ROTATIONS = 1
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST:) ROOST_ENDS
STARTD_CRON_ROOST_ENDS_EXECUTABLE = /usr/bin/cat
STARTD_CRON_ROOST_ENDS_ARGS = {sick.FIFO}
STARTD_CRON_ROOST_ENDS_MODE = WaitForExit
STARTD_CRON_ROOST_ENDS_PERIOD = 10s
STARTD_CRON_ROOST_ENDS_RECONFIG = False
# What runs shows as well whether jobs of its kind do well.
STARTD_JOB_ATTRS = $(STARTD_JOB_ATTRS) Cmd
# False: a sick node says so, and goes on taking jobs.
ROOST_SICK_NODES_STOP = True
"""

#: Read after what the user configured, START among it.
SICK_LAST: Final = """\
# Written by roost-node: what a sick node does. `cat` brings the attributes, see 10-roost.conf.
if $(ROOST_SICK_NODES_STOP)
START = ($(START)) && RoostSick =!= True && RoostPaused =!= True
endif
"""


_LIMITS: Final = f"""\
# --- a job that uses more than it asked for is held ----------------------------------------------
# Where HTCondor can make cgroups in this container, those limit memory. Else it is looked at:
# usage is measured and reported this often (stock: 15 and 300), judged every 5 s.
PID_SNAPSHOT_INTERVAL = 5
STARTER_UPDATE_INTERVAL = 15
STARTER_INITIAL_UPDATE_INTERVAL = 5
# Many jobs ask for no disk, and get what their input files need: 1 GiB is everybody's, or a tenth
# of a smaller disk. In KiB.
ROOST_MEMORY_EXCEEDED = (JobUniverse =!= 13 && (MemoryUsage ?: 0) > Memory)
ROOST_DISK_EXCEEDED = ((DiskUsage ?: 0) > Disk && \\
  (DiskUsage > 1048576 || DiskUsage > TotalDisk / 10))
ROOST_EXCEEDED = ($(ROOST_MEMORY_EXCEEDED) || $(ROOST_DISK_EXCEEDED))
PREEMPT = $(ROOST_EXCEEDED)
WANT_SUSPEND = False
WANT_HOLD = $(ROOST_EXCEEDED)
WANT_HOLD_SUBCODE = ifThenElse($(ROOST_MEMORY_EXCEEDED), {HOLD_MEMORY}, {HOLD_DISK})
WANT_HOLD_REASON = ifThenElse($(ROOST_MEMORY_EXCEEDED), \\
  strcat("it used ", MemoryUsage, " MiB of memory, but had asked for ", RequestMemory, \\
         " MiB and been given ", Memory), \\
  strcat("it used ", DiskUsage / 1024, " MiB of disk, but had asked for ", RequestDisk / 1024, \\
         " MiB"))
MAXJOBRETIREMENTTIME = ifThenElse($(ROOST_EXCEEDED), -1, $(MAXJOBRETIREMENTTIME:0))
"""
