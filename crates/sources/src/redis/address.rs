//! Where a Redis server is and how to log in there: `rediss://user@host:port/0?cacert=FILE`.
//!
//! Reading an address touches nothing. No message repeats an address, which may hold a password.

use crate::net::percent_decoded;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result, Secret};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host's name or address, and a port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket of this machine.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How TLS is done: certificate and host's name are always checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The file of trusted certificates; the system's when none is named.
    pub authority: Option<PathBuf>,
    /// Our own certificate and its key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A server and a user.
#[derive(Debug, Clone)]
pub struct Address {
    endpoint: Endpoint,
    tls: Option<Tls>,
    user: Option<String>,
    password: Option<Secret<String>>,
}

const SHAPE: &str = "write `rediss://user@host:6379`, `redis://host:6379` or `unix:///run/redis/redis.sock`; encode `@`, `/`, \
                     `:` and `%` in names and passwords as `%40`, `%2F`, `%3A` and `%25`";
const PORT: u16 = 6379;

impl Address {
    /// Reads an address; `password` is what it is completed with where it holds none (`REDISCLI_AUTH`).
    ///
    /// # Errors
    /// `R0430`, without the address in it.
    pub fn parse(text: &str, password: Option<Secret<String>>) -> Result<Self> {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(fault("contains a space or a control character", "write such characters as `%20`"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault("has no scheme", SHAPE))?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, own_password) = login.split_once(':').unwrap_or((login, ""));
        let mut found = Found { user: given(user)?, password: given(own_password)?, ..Found::default() };
        found.read_query(query)?;
        let (endpoint, database) = match scheme {
            "redis" | "rediss" => (tcp(host)?, given(path.strip_prefix('/').unwrap_or(path))?),
            "unix" if host.is_empty() && path.len() > 1 => (Endpoint::Unix(decode(path)?.into()), None),
            "unix" => return Err(fault("has no absolute path of a socket", SHAPE)),
            _ => return Err(fault("has a scheme that is none of Redis", SHAPE)),
        };
        if database.or(found.database).is_some_and(|number| number.parse::<u16>().is_err()) {
            return Err(fault("has a database that is no number", SHAPE));
        }
        let identity = match (found.certificate, found.key) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(fault("has `cert` without `key`, or the other way round", "name both files")),
        };
        let tls = Tls { authority: found.authority.map(PathBuf::from), identity };
        if scheme != "rediss" && tls != Tls::default() {
            return Err(fault("names certificates without TLS", "write `rediss://` for TLS"));
        }
        let password = found.password.map(Secret::new).or(password);
        Ok(Self { endpoint, tls: (scheme == "rediss").then_some(tls), user: found.user, password })
    }

    /// Reads an address and completes it from this process's `REDISCLI_AUTH`, as `redis-cli` does.
    ///
    /// # Errors
    /// See [`Address::parse`].
    pub fn of_process(text: &str) -> Result<Self> {
        let password = std::env::var("REDISCLI_AUTH").ok().filter(|value| !value.is_empty());
        Self::parse(text, password.map(Secret::new))
    }

    /// A server's socket on this machine that asks for no password: one that we have started ourselves.
    pub fn on_socket(path: &Path) -> Self {
        Self { endpoint: Endpoint::Unix(path.to_owned()), tls: None, user: None, password: None }
    }

    /// Where the server listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How TLS is used; `None` for none.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The user that logs in; Redis's `default` when none is named.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn password(&self) -> Option<&Secret<String>> {
        self.password.as_ref()
    }
}

impl fmt::Display for Address {
    /// Without any password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        match (&self.endpoint, &self.tls) {
            (Endpoint::Unix(path), _) => write!(f, "unix://{user}{}", path.display()),
            (endpoint, None) => write!(f, "redis://{user}{endpoint}"),
            (endpoint, Some(_)) => write!(f, "rediss://{user}{endpoint}"),
        }
    }
}

/// What an address says about itself.
#[derive(Default)]
struct Found {
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    authority: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Found {
    fn read_query(&mut self, query: &str) -> Result<()> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| fault("has a parameter without a value", SHAPE))?;
            let place = match name {
                "user" | "username" => &mut self.user,
                "password" => &mut self.password,
                "db" => &mut self.database,
                "cacert" if value == "system" => continue,
                "cacert" => &mut self.authority,
                "cert" => &mut self.certificate,
                "key" => &mut self.key,
                _ => {
                    let names = "the parameters are cacert, cert, db, key, password, user";
                    return Err(fault("has an unknown parameter", names));
                }
            };
            *place = given(value)?;
        }
        Ok(())
    }
}

fn fault(reason: &str, hint: &'static str) -> Error {
    let message = format!("the address of the Redis server {reason}");
    Error::new(ErrorKind::Invalid, codes::REDIS_ADDRESS, message).with_hint(hint)
}

fn decode(text: &str) -> Result<String> {
    percent_decoded(text)
        .ok_or_else(|| fault("has a `%` without two hexadecimal digits, or one that makes no text", SHAPE))
}

fn given(text: &str) -> Result<Option<String>> {
    decode(text).map(|text| Some(text).filter(|text| !text.is_empty()))
}

fn tcp(text: &str) -> Result<Endpoint> {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => (host, ""),
        Some(Some((host, rest))) => (host, rest.strip_prefix(':').unwrap_or("?")),
        Some(None) => return Err(fault("has `[` without `]`", SHAPE)),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = if port.is_empty() { Some(PORT) } else { port.parse().ok().filter(|port| *port > 0) };
    let port = port.ok_or_else(|| fault("has a port that is no number from 1 to 65535", SHAPE))?;
    let host = given(host)?.ok_or_else(|| fault("names no host", SHAPE))?;
    Ok(Endpoint::Tcp { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Address> {
        Address::parse(text, Some(Secret::new("environment".to_owned())))
    }

    #[test]
    fn addresses_are_read_in_their_usual_forms() {
        for (text, shown, password) in [
            ("redis://cache", "redis://cache:6379", "environment"),
            ("redis://cache:7000/3", "redis://cache:7000", "environment"),
            ("redis://:p%40ss@cache", "redis://cache:6379", "p@ss"),
            ("rediss://app:pw@cache:1/0?cacert=/ca.crt", "rediss://app@cache:1", "pw"),
            ("rediss://app@[::1]:6380?cacert=system", "rediss://app@[::1]:6380", "environment"),
            ("redis://[::1]", "redis://[::1]:6379", "environment"),
            ("unix:///run/r%20s.sock?db=2&user=u&password=x", "unix://u@/run/r s.sock", "x"),
        ] {
            let address = read(text).unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(address.password().unwrap().expose(), password, "{text}");
            assert!(
                !format!("{address:?}").contains("ss\"") && !format!("{address:?}").contains("environment")
            );
        }
        let with = read("rediss://h?cacert=/ca&cert=/c&key=/k").unwrap();
        let identity = Some(("/c".into(), "/k".into()));
        assert_eq!(with.tls(), Some(&Tls { authority: Some("/ca".into()), identity }));
        assert!(read("rediss://h?cacert=system").unwrap().tls().is_some_and(|tls| tls.authority.is_none()));
    }

    #[test]
    fn malformed_addresses_are_refused_without_repeating_them() {
        for text in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:65536",
            "redis://h:x",
            "redis://[::1",
            "redis://[::1]x",
            "redis://h/one",
            "redis://h/-1",
            "redis://h ",
            "redis://h?x=secret",
            "redis://h?db",
            "redis://h?cacert=/ca",
            "rediss://h?cert=/c",
            "unix://host/x",
            "unix://",
            "redis://%zz",
            "redis://secret%00@h",
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.code(), error.kind()), (codes::REDIS_ADDRESS, ErrorKind::Invalid), "{text}");
            assert!(!format!("{error} {:?}", error.hint()).contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(scheme in "redis|rediss|unix|", text in "[ -~]{0,40}") {
            let _address = read(&format!("{scheme}://{text}")).is_ok();
        }
    }
}
