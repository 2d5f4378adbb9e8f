//! What a server's errors, and broken connections, mean for the caller.

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind};
use std::fmt;

/// How much of a text from the server is shown, in characters.
const SHOWN_CHARS: usize = 300;

/// A text from the server, fit to be shown: short, one line, no control characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_CHARS)]);
    let mut shown = String::new();
    for character in text.chars().take(SHOWN_CHARS) {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

/// The connection broke, or was never there.
pub(super) fn unavailable(who: &str, what: impl fmt::Display) -> Error {
    let message = format!("Redis at `{who}` {what}");
    Error::new(ErrorKind::Unavailable, codes::REDIS_UNAVAILABLE, message)
        .with_hint("check that the server runs and listens there, then try again")
}

/// The server does not speak the protocol, or goes beyond our limits.
pub(super) fn protocol(who: &str, what: impl fmt::Display) -> Error {
    let message = format!("what answers at `{who}` is not Redis as we know it: {what}");
    Error::new(ErrorKind::Unsupported, codes::REDIS_PROTOCOL, message)
        .with_hint("check host and port, and whether the server wants TLS there (`rediss://`)")
}

/// What the server says to a command it refuses. `said` begins with a word in capitals for the kind of error.
pub(super) fn refused(who: &str, command: &str, said: &[u8]) -> Error {
    let word = said.split(|byte| *byte == b' ').next().unwrap_or_default();
    let text = shown(said);
    let message = |what: &str| format!("Redis at `{who}` {what}: `{text}`");
    match word {
        b"NOAUTH" | b"WRONGPASS" => {
            Error::new(ErrorKind::Unauthorized, codes::REDIS_LOGIN, message("refuses the login")).with_hint(
                "check user and password: in the address that a variable holds, or in `REDISCLI_AUTH`",
            )
        }
        // Before the login it is a complaint about it: a password where none is set, and older servers' words.
        _ if command == "AUTH" => {
            Error::new(ErrorKind::Unauthorized, codes::REDIS_LOGIN, message("refuses the login")).with_hint(
                "check user and password: in the address that a variable holds, or in `REDISCLI_AUTH`",
            )
        }
        b"NOPERM" => Error::new(
            ErrorKind::Unauthorized,
            codes::REDIS_REFUSED,
            message(&format!("does not allow `{command}`")),
        )
        .with_hint("give the user the right: `ACL SETUSER NAME +psync +replconf +info +ping +config|get`"),
        b"LOADING" | b"BUSY" | b"MASTERDOWN" | b"NOMASTERLINK" | b"TRYAGAIN" => {
            unavailable(who, format!("is not ready: `{text}`"))
        }
        _ if said.starts_with(b"ERR max number of clients") => {
            unavailable(who, format!("takes nobody: `{text}`"))
        }
        _ if said.starts_with(b"DENIED") || said.starts_with(b"-DENIED") => {
            Error::new(ErrorKind::Unauthorized, codes::REDIS_LOGIN, message("refuses the login"))
                .with_hint("set a password in the server, or connect from its own host (protected mode)")
        }
        _ => {
            let kind =
                if said.starts_with(b"ERR unknown") { ErrorKind::Unsupported } else { ErrorKind::Invalid };
            Error::new(kind, codes::REDIS_REFUSED, message(&format!("refuses `{command}`")))
                .with_hint("see the server's log")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_says_what_to_do() {
        for (command, said, kind, code) in [
            ("PING", "NOAUTH Authentication required.", ErrorKind::Unauthorized, codes::REDIS_LOGIN),
            ("AUTH", "WRONGPASS invalid", ErrorKind::Unauthorized, codes::REDIS_LOGIN),
            (
                "AUTH",
                "ERR AUTH <password> called without any password",
                ErrorKind::Unauthorized,
                codes::REDIS_LOGIN,
            ),
            ("PSYNC", "NOPERM this user has no permissions", ErrorKind::Unauthorized, codes::REDIS_REFUSED),
            ("PSYNC", "NOMASTERLINK Can't SYNC", ErrorKind::Unavailable, codes::REDIS_UNAVAILABLE),
            ("INFO", "ERR max number of clients reached", ErrorKind::Unavailable, codes::REDIS_UNAVAILABLE),
            ("PSYNC", "ERR unknown command 'PSYNC'", ErrorKind::Unsupported, codes::REDIS_REFUSED),
            ("PING", "", ErrorKind::Invalid, codes::REDIS_REFUSED),
        ] {
            let error = refused("h:1", command, said.as_bytes());
            assert_eq!((error.kind(), error.code()), (kind, code), "{said}");
        }
        assert_eq!(shown(b"a\n\x1b[31m\xff"), "a\\n\\u{1b}[31m\u{fffd}");
        assert_eq!(shown(&vec![b'x'; 1 << 20]).len(), SHOWN_CHARS);
    }
}
