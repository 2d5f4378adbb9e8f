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

    // R05: restore.
    /// A snapshot asks for a path that leads outside of the target.
    RESTORE_OUTSIDE = "R0501";
    /// The target is in use or not empty.
    RESTORE_TARGET = "R0502";
    /// Some entries could not be restored.
    RESTORE_INCOMPLETE = "R0503";

    // R06: locks, forget, prune.
    /// Somebody holds a lock that forbids this.
    LOCKED = "R0601";
    /// A lock was lost while its holder worked: it could not be kept fresh, or somebody removed it.
    LOCK_LOST = "R0602";
    /// The repository changed since the plan was made.
    PLAN_OUTDATED = "R0603";
    /// A snapshot must not be removed: held, the newest manifest, the last complete one.
    SNAPSHOT_PROTECTED = "R0604";

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
}
