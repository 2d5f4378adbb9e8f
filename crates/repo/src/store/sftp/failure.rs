//! Turns failures of a server, of the connection and of `ssh` into our typed errors, each with what to do.
//!
//! Version 3 of the protocol has few codes: a full disk, a read-only one and an exhausted quota are all `Failure`. What
//! the file system says of its room decides between them ([`refused_write`]). What `ssh` prints is for people, but its
//! words have not changed in many years; words that are not known here are `Unavailable`.

use super::session::{Failure, shown, status};
use super::wire::Room;
use crate::store::error;
use retoma_core::error::{Code, codes};
use retoma_core::{Error, ErrorKind};
use std::fmt::Display;

/// The failure about `what` (an object or folder) in the store at `location`.
pub(super) fn error(location: &str, what: impl Display, failure: &Failure) -> Error {
    let (code, message) = match failure {
        Failure::Lost(text) => return lost(location, text),
        Failure::Nonsense(why) => {
            let message = format!("the server of `{location}` cannot be understood at `{what}`: {why}");
            return Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, message)
                .with_hint("check with `sftp` what answers there");
        }
        Failure::Status { code, message } => (*code, message),
    };
    match code {
        status::NO_SUCH_FILE => error::not_found(location, what),
        status::PERMISSION_DENIED => denied(location, what),
        status::UNSUPPORTED => unsupported(location, &format!("it answers `{message}` at `{what}`")),
        _ => {
            let text = format!("`{location}` failed on `{what}`: the server says `{message}` (`{code}`)");
            Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, text)
        }
    }
}

/// A write of `size_bytes` that failed, when `room` is what the file system had then.
pub(super) fn refused_write(
    location: &str,
    what: impl Display,
    failure: &Failure,
    room: Option<Room>,
    size_bytes: usize,
) -> Error {
    match room.filter(|_| failure.is(status::FAILURE)) {
        Some(room) if room.is_read_only => denied(location, what),
        Some(room) if room.is_out_of_files || room.free_bytes < size_bytes as u64 => {
            let message = format!("`{location}` has no room for `{what}`");
            Error::new(ErrorKind::Exhausted, codes::STORE_FULL, message).with_hint(
                "free or add space there, or remove old snapshots with `retoma forget` and `retoma prune`",
            )
        }
        _ => {
            let error = error(location, what, failure);
            if failure.is(status::FAILURE) {
                error.with_hint(
                    "look whether a quota of the user is used up there: the protocol has no word for it",
                )
            } else {
                error
            }
        }
    }
}

fn denied(location: &str, what: impl Display) -> Error {
    let message = format!("`{location}` refused access to `{what}`");
    Error::new(ErrorKind::Unauthorized, codes::STORE_DENIED, message).with_hint(
        "check the owner and mode of the folder on the server, and whether this login is read-only",
    )
}

/// A server that lacks what a durable write needs.
pub(super) fn unsupported(location: &str, why: &str) -> Error {
    let message = format!("the server of `{location}` cannot do what was asked for: {why}");
    Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message).with_hint(
        "write with a login that may write, to OpenSSH's SFTP server (6.5 or later); reading works with any",
    )
}

/// What `ssh` prints (in lower case), and what that means.
const MEANINGS: &[(&str, ErrorKind, Code, &str, &str)] = &[
    (
        "remote host identification has changed",
        ErrorKind::Unauthorized,
        codes::STORE_DENIED,
        "the server's host key is another one than before",
        "somebody may listen in: ask who runs the server for its new fingerprint before you change `known_hosts`",
    ),
    (
        "host key verification failed",
        ErrorKind::Unauthorized,
        codes::STORE_DENIED,
        "the server's host key is not known",
        "run `ssh` to this server once by hand as the same user, and compare the fingerprint before you say yes",
    ),
    (
        "permission denied (",
        ErrorKind::Unauthorized,
        codes::STORE_DENIED,
        "the server refused the login",
        "name the key in `~/.ssh/config` (`IdentityFile`), or put it into the agent, and check that the server knows it",
    ),
    (
        "too many authentication failures",
        ErrorKind::Unauthorized,
        codes::STORE_DENIED,
        "the server refused the login",
        "name the one right key in `~/.ssh/config`: `IdentityFile` with `IdentitiesOnly yes`",
    ),
    (
        "subsystem request failed",
        ErrorKind::Unsupported,
        codes::STORE_UNSUPPORTED,
        "the server has no SFTP",
        "switch it on in its `sshd_config`: `Subsystem sftp internal-sftp`",
    ),
    (
        "bad configuration option",
        ErrorKind::Invalid,
        codes::STORE_ADDRESS,
        "`ssh` refuses its configuration",
        "correct `~/.ssh/config`, or what `RETOMA_SSH_COMMAND` says",
    ),
    (
        "bad owner or permissions on",
        ErrorKind::Invalid,
        codes::STORE_ADDRESS,
        "`ssh` refuses its configuration",
        "make the file that it names writable for its owner alone: `chmod go-w`",
    ),
    (
        "not found",
        ErrorKind::Unsupported,
        codes::STORE_UNSUPPORTED,
        "`ssh` cannot be run",
        "install OpenSSH's client, or correct what `RETOMA_SSH_COMMAND` says",
    ),
    (
        "cannot be started",
        ErrorKind::Unsupported,
        codes::STORE_UNSUPPORTED,
        "`ssh` cannot be run",
        "install OpenSSH's client",
    ),
    (
        "connection refused",
        ErrorKind::Unavailable,
        codes::STORE_UNAVAILABLE,
        "nothing answers at the server's port",
        "check host and port, and whether the server's `sshd` runs",
    ),
    (
        "could not resolve hostname",
        ErrorKind::Unavailable,
        codes::STORE_UNAVAILABLE,
        "the server's name has no address",
        "check the name in the address, or `HostName` in `~/.ssh/config`",
    ),
];

fn lost(location: &str, text: &str) -> Error {
    let lower = text.to_lowercase();
    let said = last_line(text);
    let Some((_, kind, code, meaning, hint)) = MEANINGS.iter().find(|(words, ..)| lower.contains(words))
    else {
        let message = format!("the connection to `{location}` broke: `{said}`");
        return Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, message)
            .with_hint("check the network and the server; `ssh -v` to it says more");
    };
    let message = format!("`{location}` cannot be opened: {meaning}; ssh says `{said}`");
    Error::new(*kind, *code, message).with_hint(*hint)
}

/// The last line that says something; notes of a first contact do not.
fn last_line(text: &str) -> String {
    let lines = text.lines().map(|line| shown(line.as_bytes()).replace('`', "'"));
    let mut telling =
        lines.filter(|line| !line.is_empty() && !line.starts_with("Warning: Permanently added"));
    telling.next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "sftp://u@h/r";

    fn refused(code: u32) -> Failure {
        Failure::Status { code, message: "words".to_owned() }
    }

    #[test]
    fn each_status_has_the_kind_that_says_what_to_do() {
        use ErrorKind::{NotFound, Unauthorized, Unavailable, Unsupported};
        for (code, kind, expected) in [
            (2, NotFound, codes::OBJECT_NOT_FOUND),
            (3, Unauthorized, codes::STORE_DENIED),
            (4, Unavailable, codes::STORE_UNAVAILABLE),
            (5, Unavailable, codes::STORE_UNAVAILABLE),
            (6, Unavailable, codes::STORE_UNAVAILABLE),
            (8, Unsupported, codes::STORE_UNSUPPORTED),
            (4711, Unavailable, codes::STORE_UNAVAILABLE),
        ] {
            let error = error(PLACE, "data/x", &refused(code));
            assert_eq!((error.kind(), error.code()), (kind, expected), "{code}");
        }
    }

    #[test]
    fn a_vague_failure_is_told_by_the_room_that_there_was() {
        let room = |free_bytes, is_out_of_files, is_read_only| {
            Some(Room { free_bytes, is_out_of_files, is_read_only })
        };
        for (code, room, kind) in [
            (4, room(99, false, false), ErrorKind::Exhausted),
            (4, room(1 << 40, true, false), ErrorKind::Exhausted),
            (4, room(0, false, true), ErrorKind::Unauthorized),
            (4, room(100, false, false), ErrorKind::Unavailable),
            (4, None, ErrorKind::Unavailable),
            (3, room(0, false, false), ErrorKind::Unauthorized),
        ] {
            let error = refused_write(PLACE, "data/x", &refused(code), room, 100);
            assert_eq!(error.kind(), kind, "{code} {room:?}");
        }
    }

    #[test]
    fn what_ssh_says_is_understood_and_shown_on_one_line() {
        let texts = [
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\r\n",
            "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.\r\n",
            "Warning: Permanently added 'h' (ED25519).\nu@h: Permission denied (publickey).\r\n",
            "Received disconnect from ::1 port 22:2: Too many authentication failures\r\n",
            "subsystem request failed on channel 0\r\n",
            "/etc/ssh/ssh_config: line 1: Bad configuration option: nonsense\r\n",
            "Bad owner or permissions on /etc/ssh/ssh_config\r\n",
            "ssh: 1: no-such: not found\n",
            "ssh: connect to host h port 22: Connection refused\r\n",
            "ssh: Could not resolve hostname h: Name or service not known\r\n",
            "ssh: connect to host h port 22: No route to host\r\n",
            "",
        ];
        let all: Vec<String> = texts
            .iter()
            .map(|text| {
                let error = error(PLACE, "x", &Failure::Lost(format!("the connection ended\n{text}")));
                let (kind, code) = (error.kind(), error.code());
                format!("{kind:?} {code}: {}\n  {}", error.message(), error.hint().unwrap_or_default())
            })
            .collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}
