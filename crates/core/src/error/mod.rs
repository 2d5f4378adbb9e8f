//! The one error type of all our crates.
//!
//! An error answers four questions: what can the caller do ([`ErrorKind`]), which page explains it ([`Code`]), what
//! happened and where (message and context), and what to do next (hint). Context is added on the way up as verb
//! phrases in the present tense ("read pack header"); only the last printer says "failed". An error is returned or
//! logged, never both.

pub mod codes;

use std::borrow::Cow;
use std::fmt;

/// `Result` with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Something outside did not answer; trying again may help. The only kind that is retried.
    Unavailable,
    /// The input is wrong; fix it.
    Invalid,
    /// The thing asked for is not there.
    NotFound,
    /// Somebody else changed it first; read again and decide again.
    Conflict,
    /// We lost the right to act; stop.
    Fenced,
    /// Stored data are wrong; the message names object and offset.
    Corrupt,
    /// Wrong key or missing permission.
    Unauthorized,
    /// The other side, or this version, cannot do it.
    Unsupported,
    /// The user or a signal asked us to stop.
    Cancelled,
    /// A resource ran out: disk full, quota, file handles.
    Exhausted,
    /// A bug in Retoma.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

/// A stable error code such as `R0201`; `docs/errors.md` has a section for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub(crate) &'static str);

impl Code {
    /// The code as text, for example `"R0201"`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What went wrong, where, and what to do next. Cheap to move: one pointer.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    code: Code,
    message: String,
    hint: Option<Cow<'static, str>>,
    /// Innermost first.
    context: Vec<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error. `message` is one sentence without a full stop, values in backticks.
    #[must_use]
    pub fn new(kind: ErrorKind, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code,
            message: message.into(),
            hint: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// An input/output error about `what` (a path or an object), with the kind that fits the system's own code.
    #[must_use]
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, code) = match source.kind() {
            Io::NotFound => (ErrorKind::NotFound, codes::IO_NOT_FOUND),
            Io::PermissionDenied => (ErrorKind::Unauthorized, codes::IO_PERMISSION),
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (ErrorKind::Exhausted, codes::IO_FULL),
            Io::Interrupted | Io::TimedOut | Io::ConnectionReset | Io::ConnectionRefused => {
                (ErrorKind::Unavailable, codes::IO_FAILED)
            }
            _ => (ErrorKind::Unavailable, codes::IO_FAILED),
        };
        Self::new(kind, code, format!("`{what}`: {source}")).with_source(source)
    }

    /// A bug in Retoma: an invariant of ours does not hold.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, codes::INTERNAL, message)
            .with_hint("this is a bug in Retoma; please report it with the command that you ran")
    }

    /// What to do next, as an imperative sentence without a full stop.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error below this one. Its text is printed after ours, so don't repeat it in the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what we were doing, as a verb phrase in the present tense: `read pack header`.
    #[must_use]
    pub fn context(mut self, doing: impl Into<Cow<'static, str>>) -> Self {
        self.0.context.push(doing.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What happened, without context and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next, where we know it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What we were doing, outermost first.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.0.context.iter().rev().map(AsRef::as_ref)
    }
}

impl fmt::Display for Error {
    /// One line: contexts from outside in, then the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.contexts() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} {:?}] {self}", self.0.code, self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Adds context to the error of a `Result`.
pub trait ResultExt<T> {
    /// See [`Error::context`].
    fn context(self, doing: impl Into<Cow<'static, str>>) -> Result<T>;
    /// Like [`ResultExt::context`]; the text is made only on error.
    fn with_context<C: Into<Cow<'static, str>>>(self, doing: impl FnOnce() -> C) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, doing: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.context(doing))
    }

    fn with_context<C: Into<Cow<'static, str>>>(self, doing: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| error.context(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_read_from_outside_in() {
        let error = Error::new(ErrorKind::Corrupt, codes::INTERNAL, "hash differs")
            .context("read pack header")
            .context("verify repository");
        assert_eq!(error.to_string(), "verify repository: read pack header: hash differs");
    }

    #[test]
    fn a_full_disk_is_told_from_a_disk_that_does_not_answer() {
        let full = Error::io("x", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), ErrorKind::Exhausted);
        assert!(!full.kind().is_retryable());
    }
}
