//! Turns the system's errors into our typed ones. Those of cloud providers: `cloud/answer.rs`.
//!
//! The kind decides what the layers above do: only `Unavailable` is retried. What cannot be told apart is
//! `Unavailable`, since a bounded retry of a lasting error costs seconds, and giving up on a passing one costs a backup.

use super::Key;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind};
use std::fmt::Display;
use std::io::ErrorKind as Io;

/// `key` is not in the store at `location`.
pub(super) fn not_found(location: &str, key: impl Display) -> Error {
    Error::new(ErrorKind::NotFound, codes::OBJECT_NOT_FOUND, format!("`{key}` is not in `{location}`"))
}

/// `key` exists already in the store at `location`.
pub(super) fn exists(location: &str, key: impl Display) -> Error {
    Error::new(ErrorKind::Conflict, codes::OBJECT_EXISTS, format!("`{key}` is in `{location}` already"))
}

/// `key` has `size_bytes` bytes, and more were asked for.
pub(super) fn short(location: &str, key: &Key, range: &std::ops::Range<u64>, size_bytes: u64) -> Error {
    let message = format!(
        "`{key}` in `{location}` has `{size_bytes}` bytes, but bytes `{}` to `{}` were asked for",
        range.start, range.end
    );
    Error::new(ErrorKind::Corrupt, codes::OBJECT_SHORT, message)
        .with_hint("the object was cut or replaced; run `retoma verify` to see what it hits")
}

/// A part that ends before it starts: a bug of the caller.
pub(super) fn reversed(key: &Key, range: &std::ops::Range<u64>) -> Error {
    Error::internal(format!("bytes `{}` to `{}` of `{key}` were asked for", range.start, range.end))
}

/// A name that no object can have.
pub(super) fn bad_name(name: &str) -> Error {
    let message = format!("`{}` is not the name of an object or folder", name.escape_debug());
    Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message)
}

/// The system's error about `what` (an object or folder) in the store at `location`.
pub(super) fn io(location: &str, what: impl Display, source: std::io::Error) -> Error {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(&source);
    if matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) {
        let message = format!("the system ran out of file handles or memory at `{what}` in `{location}`");
        return Error::new(ErrorKind::Exhausted, codes::STORE_RESOURCES, message)
            .with_hint("raise the limit of open files (`ulimit -n`) or stop what else runs")
            .with_source(source);
    }
    match source.kind() {
        Io::NotFound | Io::NotADirectory | Io::IsADirectory => not_found(location, what),
        Io::AlreadyExists => exists(location, what),
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            let message = format!("`{location}` refused access to `{what}`");
            Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message)
                .with_hint("check the owner and mode of the folder, and whether it is mounted read-only")
        }
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
            let message = format!("`{location}` has no room for `{what}`");
            Error::new(ErrorKind::Exhausted, codes::STORE_FULL, message).with_hint(
                "free or add space there, or remove old snapshots with `retoma forget` and `retoma prune`",
            )
        }
        Io::InvalidFilename => bad_name(&what.to_string()),
        Io::Unsupported => {
            let message = format!("`{location}` cannot do what was asked for on `{what}`");
            Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message)
        }
        _ => Error::new(
            ErrorKind::Unavailable,
            codes::STORE_UNAVAILABLE,
            format!("`{location}` failed on `{what}`"),
        ),
    }
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn each_error_of_the_system_has_the_kind_that_says_what_to_do() {
        use ErrorKind::{Conflict, Exhausted, Invalid, NotFound, Unauthorized, Unavailable};
        let expected = [
            (Errno::NOENT, NotFound, codes::OBJECT_NOT_FOUND),
            (Errno::NOTDIR, NotFound, codes::OBJECT_NOT_FOUND),
            (Errno::EXIST, Conflict, codes::OBJECT_EXISTS),
            (Errno::ACCESS, Unauthorized, codes::STORE_DENIED),
            (Errno::PERM, Unauthorized, codes::STORE_DENIED),
            (Errno::ROFS, Unauthorized, codes::STORE_DENIED),
            (Errno::NOSPC, Exhausted, codes::STORE_FULL),
            (Errno::DQUOT, Exhausted, codes::STORE_FULL),
            (Errno::FBIG, Exhausted, codes::STORE_FULL),
            (Errno::MFILE, Exhausted, codes::STORE_RESOURCES),
            (Errno::NFILE, Exhausted, codes::STORE_RESOURCES),
            (Errno::NAMETOOLONG, Invalid, codes::STORE_ADDRESS),
            (Errno::IO, Unavailable, codes::STORE_UNAVAILABLE),
            (Errno::STALE, Unavailable, codes::STORE_UNAVAILABLE),
            (Errno::INVAL, Unavailable, codes::STORE_UNAVAILABLE),
        ];
        for (errno, kind, code) in expected {
            let error = io("file:///r", "data/x", errno.into());
            assert_eq!((error.kind(), error.code()), (kind, code), "{errno}");
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
