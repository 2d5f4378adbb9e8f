//! Where a server is and how to log in there: `postgres://user@host:port/database?sslmode=verify-full`.
//!
//! Reading an address touches nothing: what libpq takes from its surroundings comes in as an [`Environment`]. No message
//! repeats an address, which may hold a password.

use super::environment::{Environment, PassFile};
use super::{limits, pass_file};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result, Secret};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a server may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host's name or address, and a port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in a folder of this machine.
    Unix {
        /// The folder.
        folder: PathBuf,
        /// The port, which is a part of the socket's name.
        port: u16,
    },
}

impl Endpoint {
    /// The path of the socket; `None` for TCP.
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { folder, port } => Some(folder.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// Whether TLS is used, and what of the server's certificate must hold; as libpq has it. Sockets of this machine never
/// use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS when the server has it, and without when that fails. Nothing is checked: no protection from an active attacker.
    #[default]
    Prefer,
    /// TLS. The certificate is checked only when there is a file of trusted ones.
    Require,
    /// TLS, and a trusted authority has signed the certificate.
    VerifyCa,
    /// As before, and the certificate is for this host: what a network asks for.
    VerifyFull,
}

impl SslMode {
    const ALL: [(&'static str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

/// Whether the login is tied to the TLS connection (SCRAM-SHA-256-PLUS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server offers it.
    #[default]
    Prefer,
    /// Always; a login without it is refused.
    Require,
}

/// Which certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those of the operating system: `sslrootcert=system`.
    System,
    /// Those in this file, which was named.
    Named(PathBuf),
    /// Those in libpq's usual file, if it is there.
    Usual(PathBuf),
    /// None: there is no home folder.
    Nowhere,
}

/// A server, a database in it, and a user.
#[derive(Debug, Clone)]
pub struct Address {
    endpoints: Vec<Endpoint>,
    user: String,
    database: String,
    application_name: String,
    options: Option<String>,
    connect_timeout: Duration,
    pub(super) ssl_mode: SslMode,
    pub(super) roots: Roots,
    pub(super) channel_binding: ChannelBinding,
    password: Option<Secret<String>>,
    pass_file: PassFile,
}

/// Parameters of an address, each with the variable that stands in for it.
const PARAMETERS: [(&str, &str); 12] = [
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("host", "PGHOST"),
    ("options", ""),
    ("password", ""),
    ("port", "PGPORT"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", ""),
    ("user", "PGUSER"),
];

/// Where Debian's and PostgreSQL's own builds put the socket.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

impl Address {
    /// Reads an address and completes it from `environment`.
    ///
    /// # Errors
    /// `R0410`, without the address in it.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self> {
        let mut settings = Settings::read(text)?;
        for (name, variable) in PARAMETERS {
            if let Some(value) = environment.variables.get(variable) {
                settings.values.entry(name).or_insert_with(|| value.clone());
            }
        }
        let choose = |name: &'static str| settings.values.get(name).filter(|value| !value.is_empty());
        let user = choose("user").or(environment.user.as_ref()).cloned();
        let user = user.ok_or_else(|| fault("names no user", "write `postgres://user@host/database`"))?;
        if choose("target_session_attrs").is_some_and(|value| value != "any") {
            return Err(fault("asks for `target_session_attrs`", "name the one server that is meant"));
        }
        let address = Self {
            endpoints: endpoints(choose("host"), choose("port"))?,
            database: choose("dbname").unwrap_or(&user).clone(),
            application_name: choose("application_name").cloned().unwrap_or_else(|| "retoma".to_owned()),
            options: choose("options").cloned(),
            connect_timeout: connect_timeout(choose("connect_timeout"))?,
            ssl_mode: choose("sslmode").map_or(Ok(SslMode::default()), |value| ssl_mode(value))?,
            roots: roots(choose("sslrootcert"), environment),
            channel_binding: choose("channel_binding")
                .map_or(Ok(ChannelBinding::default()), |v| binding(v))?,
            password: settings.password.or_else(|| environment.password.clone()),
            pass_file: environment.pass_file.clone(),
            user,
        };
        if address.roots == Roots::System && address.ssl_mode != SslMode::VerifyFull {
            return Err(fault(
                "trusts the system's authorities without checking the host's name",
                "write `sslmode=verify-full` with `sslrootcert=system`",
            ));
        }
        Ok(address)
    }

    /// Reads an address and completes it from this process's environment.
    pub fn of_process(text: &str) -> Result<Self> {
        Self::parse(text, &Environment::of_process())
    }

    /// A server's socket on this machine that asks for no password: one that we have started ourselves.
    pub fn on_socket(folder: &Path, port: u16, user: &str, database: &str) -> Self {
        Self {
            endpoints: vec![Endpoint::Unix { folder: folder.to_owned(), port }],
            user: user.to_owned(),
            database: database.to_owned(),
            application_name: "retoma".to_owned(),
            options: None,
            connect_timeout: limits::CONNECT_TIMEOUT,
            ssl_mode: SslMode::Disable,
            roots: Roots::Nowhere,
            channel_binding: ChannelBinding::default(),
            password: None,
            pass_file: PassFile::Missing,
        }
    }

    /// The same server and user with another database.
    #[must_use]
    pub fn with_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// The same server under another name of ours, which is also the one that `synchronous_standby_names` means.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.application_name);
        self
    }

    /// What libpq reads from its environment to reach the same server in the same way, with the password where this address has
    /// one; it looks into the password file by itself.
    pub fn libpq_environment(&self) -> Vec<(&'static str, Secret<String>)> {
        let mut variables = vec![
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGAPPNAME", self.application_name.clone()),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.as_secs().to_string()),
        ];
        // Several are the usual ones, which libpq knows too.
        if let [endpoint] = self.endpoints.as_slice() {
            let (host, port) = match endpoint {
                Endpoint::Tcp { host, port } => (host.clone(), port),
                Endpoint::Unix { folder, port } => (folder.display().to_string(), port),
            };
            variables.extend([("PGHOST", host), ("PGPORT", port.to_string())]);
        }
        let mode = SslMode::ALL.iter().find(|(_, mode)| *mode == self.ssl_mode);
        variables.extend(mode.map(|(name, _)| ("PGSSLMODE", (*name).to_owned())));
        match &self.roots {
            Roots::Named(path) => variables.push(("PGSSLROOTCERT", path.display().to_string())),
            Roots::System => variables.push(("PGSSLROOTCERT", "system".to_owned())),
            Roots::Usual(_) | Roots::Nowhere => {}
        }
        let binding = match self.channel_binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Prefer => "prefer",
            ChannelBinding::Require => "require",
        };
        variables.push(("PGCHANNELBINDING", binding.to_owned()));
        variables.extend(self.options.clone().map(|options| ("PGOPTIONS", options)));
        let secret = |(name, value)| (name, Secret::new(value));
        let password = self.password.clone().map(|password| ("PGPASSWORD", password));
        variables.into_iter().map(secret).chain(password).collect()
    }

    /// Where the server may listen, in the order in which it is tried.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The user that logs in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// How TLS is used.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// What the server shows in `pg_stat_activity`.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Settings for the server's command line.
    pub(super) fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// How long a login may take.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The password for `endpoint`; `database` is what the password file knows the connection by.
    pub(super) fn password(&self, endpoint: &Endpoint, database: &str) -> Option<Secret<String>> {
        if let Some(password) = &self.password {
            return Some(password.clone());
        }
        let PassFile::Text(text) = &self.pass_file else { return None };
        let (host, port, is_default_socket) = match endpoint {
            Endpoint::Tcp { host, port } => (host.clone(), *port, false),
            Endpoint::Unix { folder, port } => (
                folder.display().to_string(),
                *port,
                SOCKET_FOLDERS.iter().any(|usual| Path::new(usual) == folder),
            ),
        };
        let user = &self.user;
        let wanted = pass_file::Wanted { host: &host, is_default_socket, port, database, user };
        pass_file::look_up(text.expose(), wanted)
    }

    /// The password file that is not used because others may read it.
    pub(super) fn exposed_pass_file(&self) -> Option<&Path> {
        if let PassFile::Exposed(path) = &self.pass_file { Some(path) } else { None }
    }
}

impl fmt::Display for Address {
    /// Without any password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoints.first() {
            Some(endpoint @ Endpoint::Tcp { .. }) => {
                write!(f, "postgres://{}@{endpoint}/{}", self.user, self.database)
            }
            Some(Endpoint::Unix { folder, port }) => {
                let folder = folder.display();
                write!(f, "postgres://{}@/{}?host={folder}&port={port}", self.user, self.database)
            }
            None => write!(f, "postgres://{}@/{}", self.user, self.database),
        }
    }
}

/// The parameters that an address names itself.
struct Settings {
    values: BTreeMap<&'static str, String>,
    password: Option<Secret<String>>,
}

impl Settings {
    fn read(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| fault("does not begin with `postgres://`", SHAPE))?;
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(fault("contains a space or a control character", "write such characters as `%20`"));
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut settings = Self { values: BTreeMap::new(), password: None };
        let (login, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = split_host(host)?;
        let path = path.strip_prefix('/').unwrap_or(path);
        for (name, value) in
            [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", path)]
        {
            settings.set(name, value)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| fault("has a parameter without a value", SHAPE))?;
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let decoded = decode(value)?;
        if decoded.is_empty() || name == "gssencmode" {
            return Ok(());
        }
        let known = PARAMETERS.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
        match known {
            Some("password") => self.password = Some(Secret::new(decoded)),
            Some(known) => {
                self.values.insert(known, decoded);
            }
            None => {
                // The name is shown only when it cannot be a part of a password that was not encoded.
                let is_name = name.len() <= 30 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let shown = if is_name {
                    format!("has the parameter `{name}`, which is unknown")
                } else {
                    "has an unknown parameter".to_owned()
                };
                let names: Vec<_> = PARAMETERS.iter().map(|(name, _)| *name).collect();
                return Err(fault(&shown, &format!("the parameters are {}", names.join(", "))));
            }
        }
        Ok(())
    }
}

const SHAPE: &str = "write `postgres://user@host:5432/database?sslmode=verify-full`, or \
                     `postgres://user@/database?host=/var/run/postgresql` for a socket; encode `@`, `/`, `:` and `%` in \
                     names and passwords as `%40`, `%2F`, `%3A` and `%25`";

fn fault(reason: &str, hint: &str) -> Error {
    let message = format!("the address of the PostgreSQL server {reason}");
    Error::new(ErrorKind::Invalid, codes::POSTGRES_ADDRESS, message).with_hint(hint.to_owned())
}

/// Host and port of `host:port`, `[::1]:port` or `%2Ffolder`; empty where there is none.
fn split_host(text: &str) -> Result<(&str, &str)> {
    if text.contains(',') {
        return Err(fault("names several hosts", "name the one server that is meant"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| fault("has `[` without `]`", SHAPE))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if rest.is_empty() => Ok((host, "")),
            None => Err(fault("has something behind `]`", SHAPE)),
        };
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    if port.contains(':') {
        return Err(fault("has more than one `:` in its host", "write an IPv6 address as `[::1]`"));
    }
    Ok((host, port))
}

/// Resolves `%40` and the like.
fn decode(text: &str) -> Result<String> {
    let wrong = || fault("has a `%` without two hexadecimal digits, or one that makes no text", SHAPE);
    crate::net::percent_decoded(text).ok_or_else(wrong)
}

fn endpoints(host: Option<&String>, port: Option<&String>) -> Result<Vec<Endpoint>> {
    let port = port.map_or(Ok(5432), |port| {
        port.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| fault("has a port that is no number from 1 to 65535", SHAPE))
    })?;
    let Some(host) = host else {
        let sockets = SOCKET_FOLDERS.iter().map(|folder| Endpoint::Unix { folder: folder.into(), port });
        return Ok(sockets.chain([Endpoint::Tcp { host: "localhost".into(), port }]).collect());
    };
    if host.contains(',') {
        return Err(fault("names several hosts", "name the one server that is meant"));
    }
    if host.starts_with('@') {
        return Err(fault("names an abstract socket", "name the folder of an ordinary socket"));
    }
    let endpoint = if host.starts_with('/') {
        Endpoint::Unix { folder: host.into(), port }
    } else {
        Endpoint::Tcp { host: host.clone(), port }
    };
    Ok(vec![endpoint])
}

fn ssl_mode(text: &str) -> Result<SslMode> {
    let found = SslMode::ALL.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
    found.ok_or_else(|| {
        fault(
            "has an unknown `sslmode`",
            "write `verify-full` for a server across a network; `disable`, `prefer`, `require` and `verify-ca` protect less",
        )
    })
}

fn binding(text: &str) -> Result<ChannelBinding> {
    match text {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err(fault("has an unknown `channel_binding`", "write `disable`, `prefer` or `require`")),
    }
}

fn connect_timeout(text: Option<&String>) -> Result<Duration> {
    let Some(text) = text else { return Ok(limits::CONNECT_TIMEOUT) };
    match text.parse::<u32>() {
        // For libpq 0 is "for ever"; here nothing is.
        Ok(0) => Ok(limits::CONNECT_TIMEOUT),
        Ok(seconds) if seconds <= 3600 => Ok(Duration::from_secs(seconds.into())),
        _ => Err(fault("has a `connect_timeout` that is no number of seconds from 1 to 3600", SHAPE)),
    }
}

fn roots(named: Option<&String>, environment: &Environment) -> Roots {
    match (named.map(String::as_str), &environment.home) {
        (Some("system"), _) => Roots::System,
        (Some(path), _) => Roots::Named(path.into()),
        (None, Some(home)) => Roots::Usual(home.join(".postgresql/root.crt")),
        (None, None) => Roots::Nowhere,
    }
}

#[cfg(test)]
mod tests;
