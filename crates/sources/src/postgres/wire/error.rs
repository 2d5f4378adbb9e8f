//! What a server's errors, and broken connections, mean for the caller.

use super::limits;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorFields;
use retoma_core::error::codes;
use retoma_core::{Code, Error, ErrorKind};
use std::borrow::Cow;
use std::fmt;

/// An error or notice as the server sent it; texts are shortened, and control characters in them escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `WARNING` and the like, never translated.
    pub severity: String,
    /// Five letters and digits that name the condition, for example `42P01`.
    pub sqlstate: String,
    /// What happened, in the server's language.
    pub message: String,
    /// More about it; may be empty.
    pub detail: String,
    /// What the server advises; may be empty.
    pub hint: String,
}

impl ServerError {
    /// Reads the fields; whatever cannot be read is left out.
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        let mut localised = String::new();
        while let Ok(Some(field)) = fields.next() {
            let text = shown(field.value_bytes());
            match field.type_() {
                b'S' => localised = text,
                b'V' => error.severity = text,
                b'C' => error.sqlstate = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                b'H' => error.hint = text,
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = localised;
        }
        error
    }

    /// Whether the server closes the connection behind it.
    pub(super) fn is_fatal(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }

    /// Our error: `who` is the server, `is_login` whether it answers a login rather than a statement.
    pub(super) fn into_error(self, who: &str, is_login: bool) -> Error {
        let (kind, code) = classify(&self.sqlstate, is_login);
        let what = match code {
            codes::POSTGRES_LOGIN => "refuses the login",
            codes::POSTGRES_RIGHT => "does not allow it",
            codes::POSTGRES_EXHAUSTED => "has run out of something",
            codes::POSTGRES_UNAVAILABLE => "is not there for us",
            _ => "refuses the statement",
        };
        let message = format!("PostgreSQL at `{who}` {what}: `{}`", self.message);
        let hint = if self.hint.is_empty() {
            Cow::Borrowed(usual_hint(code))
        } else {
            Cow::Owned(self.hint.trim_end_matches('.').to_owned())
        };
        Error::new(kind, code, message).with_hint(hint).with_source(self)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.severity, self.sqlstate)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl std::error::Error for ServerError {}

/// The SQLSTATE of the server's error that `error` is made from, for example `"55006"`.
pub fn sqlstate(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<ServerError>().map(|error| error.sqlstate.as_str())
}

/// Kind and code for a SQLSTATE (PostgreSQL's documentation, appendix *Error Codes*).
fn classify(sqlstate: &str, is_login: bool) -> (ErrorKind, Code) {
    match sqlstate {
        // No right to log in; at login also: no such database, and its own right to connect.
        _ if sqlstate.starts_with("28") => (ErrorKind::Unauthorized, codes::POSTGRES_LOGIN),
        "3D000" if is_login => (ErrorKind::NotFound, codes::POSTGRES_LOGIN),
        "42501" if is_login => (ErrorKind::Unauthorized, codes::POSTGRES_LOGIN),
        "42501" => (ErrorKind::Unauthorized, codes::POSTGRES_RIGHT),
        // Disk full, out of memory, too many connections.
        _ if sqlstate.starts_with("53") => (ErrorKind::Exhausted, codes::POSTGRES_EXHAUSTED),
        // Broken connection, shut down, crashed, starting, idle for too long.
        _ if sqlstate.starts_with("08") => (ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE),
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => {
            (ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE)
        }
        "57P04" => (ErrorKind::NotFound, codes::POSTGRES_REFUSED),
        // Cancelled by somebody or by a time limit; serialization failures and deadlocks; a lock not to be had.
        "57014" | "55P03" => (ErrorKind::Unavailable, codes::POSTGRES_REFUSED),
        _ if sqlstate.starts_with("40") => (ErrorKind::Unavailable, codes::POSTGRES_REFUSED),
        // In use (a slot that somebody reads), there already.
        "55006" | "42710" | "42P07" | "42P04" | "42P06" | "23505" => {
            (ErrorKind::Conflict, codes::POSTGRES_REFUSED)
        }
        // No such slot, table, function, column, database, schema; a file that is gone (removed WAL).
        "42704" | "42P01" | "42883" | "42703" | "3D000" | "3F000" | "58P01" => {
            (ErrorKind::NotFound, codes::POSTGRES_REFUSED)
        }
        "XX001" | "XX002" => (ErrorKind::Corrupt, codes::POSTGRES_REFUSED),
        _ if sqlstate.starts_with("58") => (ErrorKind::Unavailable, codes::POSTGRES_REFUSED),
        _ if sqlstate.starts_with("0A") || sqlstate.starts_with("XX") => {
            (ErrorKind::Unsupported, codes::POSTGRES_REFUSED)
        }
        _ => (ErrorKind::Invalid, codes::POSTGRES_REFUSED),
    }
}

fn usual_hint(code: Code) -> &'static str {
    match code {
        codes::POSTGRES_LOGIN => "check user, password and database, and the server's `pg_hba.conf`",
        codes::POSTGRES_RIGHT => {
            "grant the right to the user that logs in, or name another user in the address"
        }
        codes::POSTGRES_EXHAUSTED => "see the server's log; free disk, memory or connections",
        codes::POSTGRES_UNAVAILABLE => "see whether the server is starting or stopping, then try again",
        _ => "see the server's log for the statement",
    }
}

/// A text from the server, fit to be shown: short, one line, no control characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    // No more than the limit is looked at; a character has at most 4 bytes.
    let bytes = &bytes[..bytes.len().min(4 * limits::SHOWN_CHARS)];
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for character in text.chars().take(limits::SHOWN_CHARS) {
        match character {
            '\n' | '\t' => shown.push(' '),
            other if other.is_control() => shown.extend(other.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}

/// The connection broke, or was never there.
pub(super) fn unavailable(who: &str, what: impl fmt::Display) -> Error {
    let message = format!("PostgreSQL at `{who}` {what}");
    Error::new(ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE, message)
        .with_hint("check that the server runs and listens there, then try again")
}

/// The server does not speak the protocol, or goes beyond our limits.
pub(super) fn protocol(who: &str, what: impl fmt::Display) -> Error {
    let message = format!("what answers at `{who}` is not PostgreSQL as we know it: {what}");
    Error::new(ErrorKind::Unsupported, codes::POSTGRES_PROTOCOL, message)
        .with_hint("check host and port; a proxy in between, or another service, may answer there")
}

/// An answer that is none of what was asked for.
pub(super) fn answer(what: impl fmt::Display) -> Error {
    let message = format!("PostgreSQL answers something else than was asked for: {what}");
    Error::new(ErrorKind::Unsupported, codes::POSTGRES_ANSWER, message)
        .with_hint("check the statement, and whether the server's version is one that this program knows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(sqlstate: &str, hint: &str) -> ServerError {
        ServerError {
            severity: "ERROR".into(),
            sqlstate: sqlstate.into(),
            message: "that did not go".into(),
            detail: "more".into(),
            hint: hint.into(),
        }
    }

    #[test]
    fn kinds_follow_the_class_of_the_sqlstate() {
        for (sqlstate, is_login, kind, code) in [
            ("28P01", true, ErrorKind::Unauthorized, codes::POSTGRES_LOGIN),
            ("28000", true, ErrorKind::Unauthorized, codes::POSTGRES_LOGIN),
            ("3D000", true, ErrorKind::NotFound, codes::POSTGRES_LOGIN),
            ("53300", true, ErrorKind::Exhausted, codes::POSTGRES_EXHAUSTED),
            ("53100", false, ErrorKind::Exhausted, codes::POSTGRES_EXHAUSTED),
            ("57P03", true, ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE),
            ("57P01", false, ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE),
            ("57014", false, ErrorKind::Unavailable, codes::POSTGRES_REFUSED),
            ("42501", false, ErrorKind::Unauthorized, codes::POSTGRES_RIGHT),
            ("42601", false, ErrorKind::Invalid, codes::POSTGRES_REFUSED),
            ("42P01", false, ErrorKind::NotFound, codes::POSTGRES_REFUSED),
            ("55006", false, ErrorKind::Conflict, codes::POSTGRES_REFUSED),
            ("XX001", false, ErrorKind::Corrupt, codes::POSTGRES_REFUSED),
            ("", false, ErrorKind::Invalid, codes::POSTGRES_REFUSED),
        ] {
            let error = server(sqlstate, "").into_error("h:1", is_login);
            assert_eq!((error.kind(), error.code()), (kind, code), "{sqlstate}");
            assert_eq!(super::sqlstate(&error), Some(sqlstate));
        }
    }

    #[test]
    fn the_servers_hint_is_ours() {
        let error = server("42601", "Do it otherwise.").into_error("h:1", false);
        assert_eq!(error.to_string(), "PostgreSQL at `h:1` refuses the statement: `that did not go`");
        assert_eq!(error.hint(), Some("Do it otherwise"));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "ERROR 42601: more");
        assert_eq!(sqlstate(&unavailable("h:1", "x")), None);
    }

    #[test]
    fn texts_of_the_server_are_tamed() {
        assert_eq!(shown(b"a\nb\x1b[31m\xff"), "a b\\u{1b}[31m\u{fffd}");
        assert_eq!(shown(&vec![b'x'; 1 << 20]).len(), limits::SHOWN_CHARS);
    }
}
