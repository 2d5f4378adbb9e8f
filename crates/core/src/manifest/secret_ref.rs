//! References to secrets. The manifest never holds a secret itself.

use super::transit::TransitKey;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a secret's value is found. The reference itself is no secret and may be printed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// The value of this environment variable: `env:NAME`.
    Env(String),
    /// The contents of this file, without the line end that it may end with: `file:/path`.
    File(PathBuf),
    /// What a transit engine unwraps: `transit:https://host/v1/MOUNT/keys/NAME`. For the keys of repositories alone.
    Transit(TransitKey),
}

impl SecretRef {
    /// Reads `env:NAME` or `file:PATH`.
    ///
    /// # Errors
    /// A reason that does not repeat `text`, which may be the secret itself.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("env:") {
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            return if starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                Ok(Self::Env(name.to_owned()))
            } else {
                Err("what follows `env:` is not the name of an environment variable")
            };
        }
        match text.strip_prefix("file:") {
            Some("") => Err("a path must follow `file:`"),
            Some(path) if path.starts_with("//") => Err("a plain path follows `file:`, without `//`"),
            Some(path) if path.starts_with('~') => Err("nobody expands `~`; write the whole path"),
            Some(path) if path.contains(char::is_control) => {
                Err("the path after `file:` has control characters")
            }
            Some(path) => Ok(Self::File(PathBuf::from(path))),
            None => Err("a secret is written as a reference, not as a value"),
        }
    }

    /// As [`SecretRef::parse`], and `transit:URL` too.
    ///
    /// # Errors
    /// A reason that does not repeat `text`, which may be the secret itself.
    pub fn parse_key(text: &str) -> Result<Self, &'static str> {
        match text.strip_prefix("transit:") {
            Some(url) => TransitKey::parse(url).map(Self::Transit),
            None => Self::parse(text),
        }
    }

    /// The same reference with a relative path taken from `dir`.
    #[must_use]
    pub(super) fn resolved(self, dir: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(super::paths::resolve(dir, &path)),
            other @ (Self::Env(_) | Self::Transit(_)) => other,
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Transit(key) => write!(f, "transit:{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_printed() {
        for text in ["env:NAME", "env:_x9", "file:/etc/retoma/password", "file:password"] {
            assert_eq!(SecretRef::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn values_are_refused_without_being_repeated() {
        for text in
            ["hunter2", "", "env:", "env:9x", "env:hunter-2", "file:", "file:///hunter2", "ENV:hunter2"]
        {
            let reason = SecretRef::parse(text).unwrap_err();
            assert!(!reason.contains("hunter"), "{reason}");
        }
    }
}
