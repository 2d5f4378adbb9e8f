//! Shape of addresses (URLs). Whether something answers there is for `doctor` to find out.
//!
//! An address must not contain a password: manifests are printed, copied and stored. No message repeats an address.

use super::redact;
use crate::error::{Code, codes};

/// Where a repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// A folder on this machine: `file:///path`.
    File,
    /// AWS S3 or another service with its API: `s3://bucket/prefix`.
    S3,
    /// Google Cloud Storage: `gs://bucket/prefix`.
    Gs,
    /// Azure Blob Storage: `az://container/prefix`.
    Az,
    /// A folder on another machine over SSH: `sftp://user@host:port/path`.
    Sftp,
}

impl Scheme {
    /// The names of all schemes, in the order of the variants.
    pub const NAMES: [&'static str; 5] = ["file", "s3", "gs", "az", "sftp"];

    fn from_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        [Self::File, Self::S3, Self::Gs, Self::Az, Self::Sftp].get(at).copied()
    }

    /// The scheme's name, without `://`.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Schemes of a PostgreSQL database's address.
pub(super) const POSTGRES: &[&str] = &["postgres", "postgresql"];
/// Schemes of a Redis server's address.
pub(super) const REDIS: &[&str] = &["redis", "rediss", "unix"];
/// Schemes of what is probed over HTTP.
pub(super) const HTTP: &[&str] = &["http", "https"];

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: Code,
    /// The reason, to be put after "the address of …".
    pub(super) reason: &'static str,
    pub(super) hint: &'static str,
}

/// An address in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
}

fn shape(reason: &'static str, hint: &'static str) -> Fault {
    Fault { code: codes::MANIFEST_URL, reason, hint }
}

/// Takes `text` apart; refuses what is no address, has another scheme than `schemes`, or holds a password.
fn parts<'a>(text: &'a str, schemes: &[&str], hint: &'static str) -> Result<Parts<'a>, Fault> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| shape("has no scheme", hint))?;
    if !schemes.contains(&scheme) {
        return Err(shape("has a scheme that is not supported here", hint));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, host_and_port) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') || !redact::parameters(path).is_empty() {
        return Err(Fault {
            code: codes::MANIFEST_URL_SECRET,
            reason: "contains a password or another secret",
            hint: "take it out, and treat it as known to whoever saw this file",
        });
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(shape("contains a space or a control character", "write such characters as `%20`"));
    }
    let (host, port) = match host_and_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => {
            host_and_port.rsplit_once(':').map_or((host_and_port, None), |(host, port)| (host, Some(port)))
        }
    };
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(shape("has a port that is no number from 1 to 65535", hint));
    }
    Ok(Parts { scheme, host, path })
}

/// Checks the address of a repository.
pub(super) fn repository(text: &str) -> Result<Scheme, Fault> {
    const HINT: &str = "write `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or \
                        `sftp://user@host/path`; credentials come from the environment";
    if let Some(path) = text.strip_prefix("file://") {
        return folder(path, HINT);
    }
    let parts = parts(text, &Scheme::NAMES, HINT)?;
    let scheme = Scheme::from_name(parts.scheme).ok_or_else(|| shape("has an unknown scheme", HINT))?;
    match scheme {
        _ if parts.host.is_empty() => Err(shape("has no bucket, container or host", HINT)),
        Scheme::Sftp if parts.path.len() < 2 => Err(shape("has no path", HINT)),
        _ if parts.path.contains(['?', '#']) => Err(shape("has a query or a fragment", HINT)),
        _ => Ok(scheme),
    }
}

/// Checks what follows `file://`: a path as it is, without any `%20`, so that every folder can be named.
fn folder(path: &str, hint: &'static str) -> Result<Scheme, Fault> {
    if !path.starts_with('/') {
        return Err(shape(
            "has no absolute path",
            "a local folder is `file://` and an absolute path: `file:///path`",
        ));
    }
    if path.trim_matches('/').is_empty() {
        return Err(shape("has no path", hint));
    }
    if path.chars().any(char::is_control) {
        return Err(shape("contains a control character", hint));
    }
    Ok(Scheme::File)
}

/// Checks the address of an HTTP probe.
pub(super) fn http(text: &str) -> Result<(), Fault> {
    const HINT: &str = "write `http://host:port/path` or `https://host/path`";
    match parts(text, HTTP, HINT)? {
        Parts { host: "", .. } => Err(shape("has no host", HINT)),
        _ => Ok(()),
    }
}

/// Checks the address of a server of the kind that has `schemes`.
pub(super) fn server(text: &str, schemes: &[&str]) -> Result<(), Fault> {
    let is_postgres = schemes == POSTGRES;
    let hint = if is_postgres {
        "write `postgres://user@host:5432/database`, or `env:NAME` for a variable that holds the address"
    } else {
        "write `redis://host:6379` or `unix:///run/redis/redis.sock`, or `env:NAME` for a variable that holds the address"
    };
    let parts = parts(text, schemes, hint)?;
    // libpq takes an empty host for the local socket; Redis's sockets have paths.
    match (parts.scheme, parts.host) {
        ("unix", "") if parts.path.len() > 1 => Ok(()),
        ("unix", _) => Err(shape("has no absolute path of a socket", hint)),
        (_, "") if !is_postgres => Err(shape("has no host", hint)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_every_scheme_are_accepted() {
        for (text, scheme) in [
            ("file:///var/lib/retoma", Scheme::File),
            ("file:///home/a b/100%/#1", Scheme::File),
            ("s3://bucket", Scheme::S3),
            ("s3://bucket/a/b", Scheme::S3),
            ("gs://bucket/x", Scheme::Gs),
            ("az://container/x", Scheme::Az),
            ("sftp://backup@host:2222/srv/repo", Scheme::Sftp),
        ] {
            assert_eq!(repository(text), Ok(scheme), "{text}");
            assert!(text.starts_with(scheme.as_str()));
        }
    }

    #[test]
    fn malformed_repositories_are_refused() {
        for text in [
            "",
            "/srv/repo",
            "file://",
            "file:///",
            "file://host/x",
            "ftp://host/x",
            "s3://",
            "s3:///prefix",
            "sftp://host",
            "s3://bucket/a b",
            "s3://bucket/?x=1",
            "sftp://host:0/x",
            "sftp://host:port/x",
            "S3://bucket",
        ] {
            assert_eq!(repository(text).map_err(|fault| fault.code), Err(codes::MANIFEST_URL), "{text}");
        }
    }

    #[test]
    fn passwords_are_refused_everywhere() {
        let code = |fault: Fault| fault.code;
        let refused = Err(codes::MANIFEST_URL_SECRET);
        assert_eq!(repository("sftp://u:pw@host/x").map(|_| ()).map_err(code), refused);
        assert_eq!(repository("az://container/x?sig=pw").map(|_| ()).map_err(code), refused);
        assert_eq!(http("http://u:pw@host/").map_err(code), refused);
        assert_eq!(server("postgres://u:pw@host/x", POSTGRES).map_err(code), refused);
        assert_eq!(server("postgres://host/x?password=pw", POSTGRES).map_err(code), refused);
        assert_eq!(server("redis://:pw@host", REDIS).map_err(code), refused);
    }

    #[test]
    fn servers_are_accepted_in_their_usual_forms() {
        for text in [
            "postgres://app@127.0.0.1:5432/app",
            "postgresql:///app?host=/run/postgresql",
            "postgres://[::1]:5432/x",
        ] {
            assert_eq!(server(text, POSTGRES), Ok(()), "{text}");
        }
        assert_eq!(server("rediss://cache:6380/0", REDIS), Ok(()));
        assert_eq!(server("unix:///run/redis/redis.sock?db=1", REDIS), Ok(()));
        assert!(server("unix://host/x", REDIS).is_err() && server("unix://", REDIS).is_err());
        assert!(server("redis:///0", REDIS).is_err());
        assert!(server("redis://cache", POSTGRES).is_err());
        assert_eq!(http("https://example.org/healthz"), Ok(()));
        assert!(http("http:///healthz").is_err());
    }

    #[test]
    fn ports_are_numbers_that_can_be_connected_to() {
        for (port, is_one) in [
            ("1", true),
            ("65535", true),
            ("65536", false),
            ("0", false),
            ("", false),
            ("-1", false),
            ("8 0", false),
        ] {
            for host in ["host", "[::1]", "user@host"] {
                assert_eq!(http(&format!("http://{host}:{port}/x")).is_ok(), is_one, "{host}:{port}");
                assert_eq!(server(&format!("redis://{host}:{port}"), REDIS).is_ok(), is_one, "{host}:{port}");
            }
        }
    }

    #[test]
    fn what_is_no_address_of_its_kind_is_refused_for_its_own_reason() {
        for (text, reason) in [
            ("host", "has no scheme"),
            ("http:/host", "has no scheme"),
            ("ftp://host", "has a scheme that is not supported here"),
            ("HTTP://host", "has a scheme that is not supported here"),
            ("http://", "has no host"),
            ("http://?x", "has no host"),
            ("http://user@", "has no host"),
            ("http://host/a\tb", "contains a space or a control character"),
            ("http://u:@host", "contains a password or another secret"),
            ("http://host/x?token=pw", "contains a password or another secret"),
        ] {
            assert_eq!(http(text).map_err(|fault| fault.reason), Err(reason), "{text}");
        }
        let reason = |text: &str| repository(text).map_err(|fault| fault.reason);
        assert_eq!(reason("sftp://host/"), Err("has no path"));
        assert_eq!(reason("sftp://host/x"), Ok(Scheme::Sftp));
        assert_eq!(reason("file:////"), Err("has no path"));
        assert_eq!(reason("file:///a\u{7}"), Err("contains a control character"));
        assert_eq!(reason("file://a/b"), Err("has no absolute path"));
        assert_eq!(reason("az:///x"), Err("has no bucket, container or host"));
    }
}
