//! What an address `sftp://[user@]host[:port]/path` names.
//!
//! The parts go to `ssh` as arguments of their own, and its configuration may put them into commands: a user or host
//! that could be read as an option or by a shell is refused. Passwords are refused as well; `ssh` has better ways.

use bytes::Bytes;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use url::Url;

const SHAPE: &str = "write it like `sftp://user@host:22/srv/repository`";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// The folder on the server, without `/` at its end; relative to the user's home when it does not begin with one.
    pub(super) root: Bytes,
}

impl Target {
    /// Takes an address apart.
    pub(super) fn parse(url: &Url) -> Result<Self> {
        let refused = |why: &str, hint: &'static str| {
            let message = format!("the address of the SFTP repository {why}");
            Err(Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message).with_hint(hint))
        };
        if url.password().is_some() {
            return refused(
                "contains a password",
                "take it out, change it, and let `ssh` log in with a key: its agent or `IdentityFile` in `~/.ssh/config`",
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refused("has a query or a fragment", "`?` and `#` in a path are written `%3F` and `%23`");
        }
        let user = match decoded(url.username()).map(String::from_utf8) {
            Some(Ok(user)) if user.is_empty() => None,
            Some(Ok(user)) if is_harmless(&user, "._-@+\\") => Some(user),
            _ => return refused("has a user with characters that we do not give to `ssh`", SHAPE),
        };
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if !is_harmless(host, "._-:") {
            return refused("has a host with characters that we do not give to `ssh`", SHAPE);
        }
        let root = match decoded(url.path()) {
            Some(path) if !path.iter().any(u8::is_ascii_control) => path,
            _ => return refused("has a path with a control character or a broken `%`", SHAPE),
        };
        let root = match root.strip_prefix(b"/~/") {
            Some(below_home) => below_home,
            None => &root,
        };
        let end = root.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        if end == 0 {
            return refused("has no path", SHAPE);
        }
        let root = Bytes::copy_from_slice(&root[..end]);
        Ok(Self { user, host: host.to_owned(), port: url.port(), root })
    }

    /// The path of a name below the root; `""` is the root itself.
    pub(super) fn path(&self, name: &str) -> Bytes {
        if name.is_empty() {
            self.root.clone()
        } else {
            [&self.root[..], b"/", name.as_bytes()].concat().into()
        }
    }
}

/// Letters, digits and `others`, and nothing that could be an option.
fn is_harmless(text: &str, others: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// Text without its `%20`; `None` when one is broken.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut found = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        found.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(bytes.next())? << 4 | digit(bytes.next())?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target> {
        Target::parse(&Url::parse(text).unwrap())
    }

    #[test]
    fn an_address_names_user_host_port_and_folder() {
        let full = parse("sftp://backup@host.example:2222/srv/a%20b/").unwrap();
        assert_eq!(
            (full.user.as_deref(), &full.host[..], full.port),
            (Some("backup"), "host.example", Some(2222))
        );
        assert_eq!(full.root, "/srv/a b");
        assert_eq!(full.path("data/x"), "/srv/a b/data/x");
        assert_eq!(full.path(""), "/srv/a b");
        let short = parse("sftp://alias/~/repository").unwrap();
        assert_eq!((short.user, short.port), (None, None));
        assert_eq!(short.root, "repository", "below the user's home");
        assert_eq!(parse("sftp://u@[::1]:22/x").unwrap().host, "::1");
    }

    #[test]
    fn a_password_is_refused_and_not_shown() {
        let error = parse("sftp://user:hunter2@host/x").unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STORE_ADDRESS));
        assert!(error.hint().unwrap().contains("key"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn what_ssh_or_a_shell_could_misread_is_refused() {
        for text in [
            "sftp://-oProxyCommand=x/x",
            "sftp://-oProxyCommand=x@host/x",
            "sftp://a%20b@host/x",
            "sftp://%60id%60@host/x",
            "sftp://$(id)@host/x",
            "sftp://u@ho%24st/x",
            "sftp://host",
            "sftp://host/",
            "sftp://host/~/",
            "sftp://host/a%00b",
            "sftp://host/a%0Ab",
            "sftp://host/a%2",
            "sftp://host/a?b",
            "sftp://host/a#b",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STORE_ADDRESS), "{text}");
        }
    }
}
