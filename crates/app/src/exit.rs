//! Exit codes: part of the contract with scripts, listed in `docs/cli-json.md`.

use retoma_core::error::{Error, ErrorKind, codes};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// Failed; the user can fix it. Wrong usage too.
    Failed,
    /// A bug of ours.
    Bug,
    /// Done, but incomplete: the output names what is missing.
    Incomplete,
    /// An objective or a check was missed.
    Missed,
    /// Fenced, or a lease was lost.
    Fenced,
    /// There is no repository.
    NoRepository,
    /// Somebody else has locked it.
    Locked,
    /// Wrong key.
    WrongKey,
    /// `wal fetch`: the file is not in the archive.
    NotArchived,
    /// `wal fetch`: whether the file is in the archive cannot be known. Above 125, PostgreSQL stops; and not 126 to 192,
    /// which shells use for commands that they cannot run and for signals.
    Unknown,
    /// Stopped by a signal.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed | Self::NotArchived => 1,
            Self::Bug => 2,
            Self::Incomplete => 3,
            Self::Missed => 4,
            Self::Fenced => 5,
            Self::NoRepository => 10,
            Self::Locked => 11,
            Self::WrongKey => 12,
            Self::Interrupted => 130,
            Self::Unknown => 200,
        }
    }

    /// The exit code that an error stands for.
    pub(crate) fn of(error: &Error) -> Self {
        match (error.code(), error.kind()) {
            (codes::NO_REPOSITORY, _) => Self::NoRepository,
            (codes::LOCKED, _) => Self::Locked,
            (codes::WRONG_KEY | codes::SHARES_FEW | codes::SHARE_WRONG, _) => Self::WrongKey,
            (_, ErrorKind::Cancelled) => Self::Interrupted,
            (_, ErrorKind::Fenced) => Self::Fenced,
            (_, ErrorKind::Internal) => Self::Bug,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_end_with_the_code_that_the_documentation_names() {
        let of = |kind, code| Exit::of(&Error::new(kind, code, "x")).code();
        assert_eq!(of(ErrorKind::NotFound, codes::NO_REPOSITORY), 10);
        assert_eq!(of(ErrorKind::Conflict, codes::LOCKED), 11);
        assert_eq!(of(ErrorKind::Unauthorized, codes::WRONG_KEY), 12);
        assert_eq!(of(ErrorKind::Unauthorized, codes::SHARES_FEW), 12);
        assert_eq!(of(ErrorKind::Unauthorized, codes::SHARE_WRONG), 12);
        assert_eq!(of(ErrorKind::Cancelled, codes::CANCELLED), 130);
        assert_eq!(of(ErrorKind::Internal, codes::INTERNAL), 2);
        assert_eq!(of(ErrorKind::Invalid, codes::USAGE), 1);
    }
}
