//! Every stable error code, by area. `xtask tidy` checks that `docs/errors.md` has a section for each, and no other.
//!
//! A code is never given a second meaning; one that is no longer used stays here, marked as retired.

use super::Code;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code($text);)*
        /// All codes, in the order of this file.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

/// The code with this text, if there is one.
#[must_use]
pub fn find(text: &str) -> Option<Code> {
    ALL.iter().copied().find(|code| code.as_str() == text)
}

codes! {
    // R00: general.
    /// A bug in Retoma.
    INTERNAL = "R0001";
    /// The command line is wrong.
    USAGE = "R0002";
    /// Stopped by the user or by a signal.
    CANCELLED = "R0003";
    /// A file or folder is not there.
    IO_NOT_FOUND = "R0010";
    /// A file or folder may not be read or written.
    IO_PERMISSION = "R0011";
    /// The disk or the quota is full.
    IO_FULL = "R0012";
    /// Another input/output error.
    IO_FAILED = "R0013";

    // R01: manifest.
    /// The manifest has problems; each is listed.
    MANIFEST_INVALID = "R0101";
    /// A referenced secret is missing or empty.
    SECRET_MISSING = "R0102";
    /// The manifest is not TOML.
    MANIFEST_SYNTAX = "R0103";
    /// A key that the manifest does not know.
    MANIFEST_UNKNOWN_KEY = "R0104";
    /// A value of another type than its key has.
    MANIFEST_TYPE = "R0105";
    /// A key or table that must be there is not.
    MANIFEST_MISSING = "R0106";
    /// The manifest's version is not one that this program understands.
    MANIFEST_VERSION = "R0107";
    /// A name has characters that names do not have, or is reserved.
    MANIFEST_NAME = "R0108";
    /// Two things of one sort have the same name.
    MANIFEST_DUPLICATE = "R0109";
    /// A value is none of the few that its key allows.
    MANIFEST_CHOICE = "R0110";
    /// A text is not a length of time.
    MANIFEST_DURATION = "R0111";
    /// A number is outside its range.
    MANIFEST_RANGE = "R0112";
    /// An address is malformed or has a scheme that is not supported here.
    MANIFEST_URL = "R0113";
    /// An address contains a password.
    MANIFEST_URL_SECRET = "R0114";
    /// A secret's value stands where a reference to it belongs, or the reference is malformed.
    MANIFEST_SECRET_VALUE = "R0115";
    /// A name refers to something that the manifest does not declare.
    MANIFEST_REFERENCE = "R0116";
    /// A key does not apply to this kind of component, or contradicts another key.
    MANIFEST_CONFLICT = "R0117";
    /// The schedule cannot meet the RPO of the component's tier.
    MANIFEST_RPO = "R0118";
    /// A text is empty or malformed: path, pattern, command, public key.
    MANIFEST_VALUE = "R0119";
    /// The retention keeps nothing.
    MANIFEST_RETENTION = "R0120";
    /// A repository lies inside a component that is backed up into it.
    MANIFEST_OVERLAP = "R0121";
    /// A service is started and nothing tells whether it works (warning).
    MANIFEST_UNCHECKED = "R0122";
    /// A part of the manifest has no effect (warning).
    MANIFEST_UNUSED = "R0123";

    // R02: repository format.
    /// There is no repository at this address.
    NO_REPOSITORY = "R0201";
    /// No key of this repository opens with the given password.
    WRONG_KEY = "R0202";
    /// A stored object fails its authentication code: it was changed, cut or sealed with another key.
    NOT_AUTHENTIC = "R0203";
    /// A stored object's SHA-256 is not its name.
    HASH_MISMATCH = "R0204";
    /// A stored object is authentic and still cannot be understood.
    MALFORMED = "R0205";
    /// The repository's version is newer than this program understands.
    VERSION_TOO_NEW = "R0206";
    /// A repository exists already.
    REPOSITORY_EXISTS = "R0207";
    /// A blob that a snapshot needs is in no index.
    BLOB_MISSING = "R0208";
    /// A pack that the index names is missing or has another length.
    PACK_MISSING = "R0209";
    /// The last key of a repository cannot be removed.
    LAST_KEY = "R0210";
    /// No snapshot fits the request.
    SNAPSHOT_NOT_FOUND = "R0211";
    /// An abbreviated id fits several objects.
    AMBIGUOUS_ID = "R0212";
    /// Index files, or the index and a pack's header, tell different things about a pack.
    INDEX_MISMATCH = "R0213";
    /// A file's size is not the sum of its blobs.
    SIZE_MISMATCH = "R0214";
    /// A pack is in no index.
    PACK_UNINDEXED = "R0215";
    /// Something lies in a folder of the repository that is none of its objects.
    FOREIGN_OBJECT = "R0216";
    /// A snapshot has no such path.
    PATH_NOT_FOUND = "R0217";
    /// Somebody deleted from the repository while it was examined.
    CHANGED_MEANWHILE = "R0218";
    /// A repository has as many keys as are tried.
    TOO_MANY_KEYS = "R0219";
    /// Only the config of a repository is gone; its data are there.
    CONFIG_MISSING = "R0220";
    /// A share of a split key cannot be read.
    SHARE_MALFORMED = "R0231";
    /// Fewer shares of a split key than it takes.
    SHARES_FEW = "R0232";
    /// A share that is none of those that were made, or shares that do not belong together.
    SHARE_WRONG = "R0233";
    /// A transit engine does not unwrap, or wrap, a key.
    TRANSIT = "R0234";

    // R03: stores.
    /// The store has no such object.
    OBJECT_NOT_FOUND = "R0301";
    /// The object exists already, and conditional create was asked for.
    OBJECT_EXISTS = "R0302";
    /// The store did not answer, or failed in a way that may pass.
    STORE_UNAVAILABLE = "R0303";
    /// The address of a store cannot be understood or is not supported.
    STORE_ADDRESS = "R0304";
    /// The store has no room left.
    STORE_FULL = "R0305";
    /// The store refused the credentials or the operation.
    STORE_DENIED = "R0306";
    /// An operation on a store did not end within its time limit.
    STORE_TIMEOUT = "R0307";
    /// The system ran out of file handles or memory while it worked on a store.
    STORE_RESOURCES = "R0308";
    /// An object is shorter than the part that was asked for.
    OBJECT_SHORT = "R0309";
    /// The store cannot do what was asked for.
    STORE_UNSUPPORTED = "R0310";
    /// The bucket of a store does not exist.
    STORE_BUCKET = "R0311";
    /// The bucket takes no objects with locks.
    STORE_NO_LOCKS = "R0312";
    /// There are more versions in a bucket than can be looked through.
    STORE_VERSIONS = "R0313";

    // R04: backup and sources.
    /// A file or folder of the source could not be read.
    SOURCE_UNREADABLE = "R0401";
    /// A file changed, shrank or vanished while it was read.
    SOURCE_CHANGED = "R0402";
    /// A database that should hold data is empty.
    SOURCE_EMPTY = "R0403";
    /// A database fails its own integrity check.
    SOURCE_DAMAGED = "R0404";
    /// A pack that a very long backup builds on was pruned meanwhile.
    PRUNED_MEANWHILE = "R0405";
    /// A database stayed locked for longer than we wait.
    SOURCE_BUSY = "R0406";
    /// A database needs functions or collations of its application, so that its integrity cannot be checked.
    SOURCE_UNCHECKABLE = "R0407";
    /// What a backup recorded about a database cannot be read.
    CAPTURE_FACTS_MALFORMED = "R0408";
    /// The address of a PostgreSQL server cannot be understood.
    POSTGRES_ADDRESS = "R0410";
    /// A PostgreSQL server does not answer, shuts down, or the connection with it broke.
    POSTGRES_UNAVAILABLE = "R0411";
    /// A PostgreSQL server refuses the login, or asks for one that is not safe or not supported.
    POSTGRES_LOGIN = "R0412";
    /// A PostgreSQL server refuses a statement.
    POSTGRES_REFUSED = "R0413";
    /// A page of a PostgreSQL relation does not have its own checksum.
    POSTGRES_BAD_PAGE = "R0414";
    /// No TLS connection with a PostgreSQL server comes about, or its certificate does not hold.
    POSTGRES_TLS = "R0415";
    /// What answers does not speak PostgreSQL's protocol, or goes beyond our limits.
    POSTGRES_PROTOCOL = "R0416";
    /// A PostgreSQL server answers something else than was asked for.
    POSTGRES_ANSWER = "R0417";
    /// A PostgreSQL server has no connection, memory, disk or slot left.
    POSTGRES_EXHAUSTED = "R0418";
    /// A PostgreSQL user lacks a right.
    POSTGRES_RIGHT = "R0419";
    /// A PostgreSQL server cannot be backed up as it is set up.
    POSTGRES_SETUP = "R0420";
    /// A WAL segment is not what its name says.
    WAL_MALFORMED = "R0421";
    /// A WAL segment is stored already with other contents.
    WAL_CONFLICT = "R0422";
    /// WAL that is needed is not there.
    WAL_MISSING = "R0423";
    /// PostgreSQL's programs are missing here, or do not fit the backup.
    POSTGRES_PROGRAMS = "R0424";
    /// A restored PostgreSQL server does not come up.
    POSTGRES_NOT_UP = "R0425";
    /// What a PostgreSQL server sent of itself is no whole backup.
    POSTGRES_STREAM = "R0426";
    /// One of PostgreSQL's programs failed to dump a server, or to load a dump.
    POSTGRES_DUMP = "R0427";
    /// The address of a Redis server cannot be understood.
    REDIS_ADDRESS = "R0430";
    /// A Redis server is not there, or not ready.
    REDIS_UNAVAILABLE = "R0431";
    /// A Redis server refuses the login.
    REDIS_LOGIN = "R0432";
    /// A Redis server refuses a command.
    REDIS_REFUSED = "R0433";
    /// No TLS connection with a Redis server comes about.
    REDIS_TLS = "R0434";
    /// What answers is not Redis.
    REDIS_PROTOCOL = "R0435";
    /// A transfer from a Redis server ended before its end.
    REDIS_TRANSFER = "R0436";
    /// A data set of Redis is damaged.
    REDIS_DAMAGED = "R0437";
    /// A Redis server does not give its data set away.
    REDIS_NO_REPLICATION = "R0438";
    /// No server comes up on a copy of a data set.
    REDIS_SCRATCH = "R0439";
    /// A PostgreSQL server no longer has WAL that the archive does not have either.
    WAL_GAP = "R0440";
    /// A PostgreSQL server's WAL does not continue the archive's.
    WAL_DIVERGED = "R0441";
    /// Somebody else streams WAL through the slot.
    WAL_SLOT_BUSY = "R0442";
    /// The slot kept as much WAL as it may, and was given up.
    WAL_SLOT_LIMIT = "R0443";

    // R05: restore.
    /// A snapshot asks for a path that leads outside of the target.
    RESTORE_OUTSIDE = "R0501";
    /// The target is in use or not empty.
    RESTORE_TARGET = "R0502";
    /// Some entries could not be restored.
    RESTORE_INCOMPLETE = "R0503";
    /// A path that was asked for is not in the snapshot, or is no path inside a snapshot.
    RESTORE_PATH = "R0504";
    /// A snapshot has more entries than one restore can take.
    RESTORE_TOO_LARGE = "R0505";
    /// A point in time lies outside of what can be recovered.
    RECOVERY_WINDOW = "R0506";
    /// The WAL ended before a server had recovered to its target.
    RECOVERY_TARGET = "R0507";
    /// The WAL makes a tablespace in a folder outside of what is recovered.
    RECOVERY_TABLESPACE = "R0508";

    // R06: locks, forget, prune.
    /// Somebody holds a lock that forbids this.
    LOCKED = "R0601";
    /// A lock was lost while its holder worked: it could not be kept fresh, or somebody removed it.
    LOCK_LOST = "R0602";
    /// The repository changed since the plan was made.
    PLAN_OUTDATED = "R0603";
    /// A snapshot must not be removed: held, the newest manifest, the last complete one.
    SNAPSHOT_PROTECTED = "R0604";
    /// There is no snapshot at all, so that a prune would delete all data.
    NO_SNAPSHOTS = "R0605";

    // R099: the sample service MaraBet.
    /// The sample service's configuration is missing or wrong.
    SAMPLE_CONFIG = "R0990";
    /// The sample service's model is missing, damaged, or not the one that its checksum names.
    SAMPLE_MODEL = "R0991";
    /// The sample service's database is missing or does not answer.
    SAMPLE_DATABASE = "R0992";
    /// The sample service cannot listen on its port.
    SAMPLE_LISTEN = "R0993";
    /// The folder to seed holds a sample service already.
    SAMPLE_EXISTS = "R0994";
    /// A request to the sample service, or one of its options, is wrong.
    SAMPLE_REQUEST = "R0995";
    /// The sample service answered with an error or with something else than was asked for.
    SAMPLE_ANSWER = "R0996";

    // R07: drills and controls.
    /// A component came back later than its RTO objective.
    RTO_MISSED = "R0701";
    /// More was lost, or could have been, than the RPO objective allows.
    RPO_MISSED = "R0702";
    /// A check after the recovery found something else than it expected.
    CHECK_FAILED = "R0703";
    /// Something that the drill must show was not measured.
    NO_EVIDENCE = "R0704";
    /// Data are empty where data must be.
    EMPTY_DATA = "R0705";
    /// Two numbers of a drill cannot both be true.
    EVIDENCE_CONTRADICTS = "R0706";
    /// A control went wrong: the verifier is broken.
    CONTROL_WRONG = "R0707";
    /// The verifier was not tested, since a kind of control was not run.
    NO_CONTROLS = "R0708";
    /// The result of a drill cannot be read, or contradicts itself.
    DRILL_RESULT_MALFORMED = "R0709";
    /// The clock that times a drill went backwards.
    DRILL_CLOCK = "R0710";
    /// A drill or recovery would touch live data, a running service or a folder that is in use.
    TARGET_IS_LIVE = "R0711";
    /// The disaster was not noticed by the probes in time.
    NOT_DETECTED = "R0712";
    /// The drill cannot be run on this service as the manifest describes it.
    DRILL_UNSUITED = "R0713";
    /// The drill did not end within its time limit.
    DRILL_TIMEOUT = "R0714";
    /// Retired, no longer used: a restored database or folder is not what its snapshot says. It is `R0703` now.
    RESTORED_DIFFERS = "R0715";
    /// No write from outside succeeded after the recovery.
    NO_FIRST_WRITE = "R0716";

    // R09: services and recovery.
    /// The service's command cannot be started.
    SERVICE_NOT_STARTED = "R0901";
    /// The service was started and did not become ready, or ended.
    SERVICE_NOT_READY = "R0902";
    /// The service is still there after it was killed.
    SERVICE_NOT_STOPPED = "R0903";
    /// The service answers where a recovery is to put its data.
    SERVICE_RUNS = "R0904";
    /// A recovery was undone: the restored data failed their checks, and the previous data are back.
    ROLLED_BACK = "R0905";
    /// A recovery that was killed left data in an order that only a person can put right.
    RECOVERY_UNCLEAR = "R0906";
    /// The components of a recovery cannot be put into their places.
    RECOVERY_PLACE = "R0907";
    /// This kind of component comes with a later version.
    KIND_LATER = "R0908";

    // R095: the agent.
    /// Another agent runs with this state folder.
    AGENT_RUNS = "R0950";
    /// The agent's state folder cannot be used.
    AGENT_STATE = "R0951";
    /// A run of a task of the agent has not ended, and another one waited for it.
    AGENT_TASK_BUSY = "R0952";
    /// A child process of the agent did not end within its time, ended by a signal, or could not be started.
    AGENT_CHILD = "R0953";
    /// The agent's HTTP address is in use or not of this machine.
    AGENT_LISTEN = "R0954";
    /// A receiver of alerts does not take them.
    AGENT_RECEIVER = "R0955";
    /// The mail server does not take alerts.
    MAIL_REFUSED = "R0956";

    // R08: evidence.
    /// A record of evidence, or an export of records, cannot be understood.
    EVIDENCE_MALFORMED = "R0801";
    /// A record's signature is not valid.
    EVIDENCE_SIGNATURE = "R0802";
    /// A record is signed with another key than the one that counts.
    EVIDENCE_SIGNER = "R0803";
    /// Records are missing, come twice or stand in the wrong order.
    EVIDENCE_SEQUENCE = "R0804";
    /// A record does not continue the record before it.
    EVIDENCE_CHAIN = "R0805";
    /// A record belongs to another repository, writer or place.
    EVIDENCE_MISPLACED = "R0806";
    /// The chain does not contain the record that an anchor names.
    EVIDENCE_ANCHOR = "R0807";
    /// An export holds other records than its first line announces.
    EVIDENCE_INCOMPLETE = "R0808";
    /// A record or an export has a schema that this program does not understand.
    EVIDENCE_SCHEMA = "R0809";
    /// A signing key, a public key or an anchor is malformed.
    EVIDENCE_KEY = "R0810";
    /// The file of a signing key can be read by others.
    SIGNING_KEY_EXPOSED = "R0811";
    /// Too many others append to the same chain at once.
    EVIDENCE_CONTENDED = "R0812";
    /// A record is larger than evidence may be.
    EVIDENCE_TOO_LARGE = "R0813";
    /// The name of a writer of evidence is malformed.
    EVIDENCE_WRITER = "R0814";
}
