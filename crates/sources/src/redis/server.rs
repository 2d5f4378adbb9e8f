//! What a server says about itself.

use super::connection::Connection;
use super::facts::{DatabaseKeys, Module};
use super::resp::Value;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings that say what survives a crash, and how a copy has to be read.
const SETTINGS: [&str; 15] = [
    "save",
    "appendonly",
    "appendfsync",
    "stop-writes-on-bgsave-error",
    "maxmemory",
    "maxmemory-policy",
    "rdbchecksum",
    "rdbcompression",
    "databases",
    "repl-diskless-sync",
    "repl-timeout",
    // Where its files are.
    "dir",
    "dbfilename",
    "appenddirname",
    "appendfilename",
];
/// So many modules are recorded.
const MODULES: usize = 1_000;

/// A server as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// As `7.0.15`.
    pub version: String,
    /// `standalone` or `cluster`.
    pub mode: String,
    /// `master` or `slave`, in the server's words.
    pub role: String,
    /// What it has named itself at its start.
    pub run_id: String,
    /// What its data set takes in memory, in bytes.
    pub used_memory_bytes: u64,
    /// Settings of persistence and of the file, as `CONFIG GET` gives them; nothing where that is not allowed.
    pub settings: Option<BTreeMap<String, String>>,
    /// Modules that it has loaded.
    pub modules: Vec<Module>,
}

impl Server {
    /// Asks the server.
    ///
    /// # Errors
    /// What the connection says; `R0433` where `INFO` is not allowed.
    pub fn ask(connection: &mut Connection) -> Result<Self> {
        Self::look(connection).map(|(server, _)| server)
    }

    /// The server, and its keys by database as it counts them itself.
    pub(super) fn look(connection: &mut Connection) -> Result<(Self, BTreeMap<u64, DatabaseKeys>)> {
        let info = connection.bytes(&[b"INFO"]).context("ask the server about itself")?;
        let info = Info(String::from_utf8_lossy(&info).into_owned());
        let mut server = Self {
            version: info.text("redis_version"),
            mode: info.text("redis_mode"),
            role: info.text("role"),
            run_id: info.text("run_id"),
            used_memory_bytes: info.text("used_memory").parse().unwrap_or(0),
            settings: None,
            modules: info.modules(),
        };
        if server.mode == "sentinel" || server.version.is_empty() {
            let what = if server.version.is_empty() {
                "does not say what it is"
            } else {
                "is a Sentinel, which holds no data"
            };
            let message = format!("Redis at `{}` {what}", connection.who());
            return Err(Error::new(ErrorKind::Invalid, codes::REDIS_REFUSED, message).with_hint(
                "name the address of a server that holds the data; a user needs the right `+info`",
            ));
        }
        server.settings = settings(connection)?;
        Ok((server, info.keyspace()))
    }
}

/// `None` where the server does not tell.
fn settings(connection: &mut Connection) -> Result<Option<BTreeMap<String, String>>> {
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        match connection.call(&[b"CONFIG", b"GET", name.as_bytes()]) {
            Ok(Value::Array(pair)) => {
                if let [_, value] = pair.as_slice()
                    && let Some(value) = value.bytes()
                {
                    settings.insert(name.to_owned(), String::from_utf8_lossy(value).into_owned());
                }
            }
            Ok(_) => {}
            Err(error) if error.code() == codes::REDIS_REFUSED => return Ok(None),
            Err(error) => return Err(error).context("ask the server for its settings"),
        }
    }
    Ok(Some(settings))
}

/// The answer to `INFO`: lines of `name:value`.
struct Info(String);

impl Info {
    fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once(':'))
    }

    fn text(&self, name: &str) -> String {
        let found = self.lines().find(|(its, _)| *its == name).map(|(_, value)| value.trim());
        found.unwrap_or_default().chars().take(200).collect()
    }

    /// `module:name=json,ver=20406,…`
    fn modules(&self) -> Vec<Module> {
        let module = |value: &str| {
            let field =
                |name: &str| value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            Some(Module { name: field("name")?.to_owned(), version: field("ver")?.parse().ok()? })
        };
        self.lines()
            .filter(|(name, _)| *name == "module")
            .filter_map(|(_, value)| module(value))
            .take(MODULES)
            .collect()
    }

    /// `db0:keys=1,expires=0,avg_ttl=0`
    fn keyspace(&self) -> BTreeMap<u64, DatabaseKeys> {
        let database = |(name, value): (&str, &str)| {
            let number = name.strip_prefix("db")?.parse().ok()?;
            let field = |name: &str| {
                value
                    .split(',')
                    .find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.trim().parse().ok())
            };
            Some((number, DatabaseKeys { keys: field("keys")?, expires: field("expires")? }))
        };
        self.lines().filter_map(database).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_read() {
        let text = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Modules\r\nmodule:name=json,ver=20406,api=1\r\n\
                    module:broken\r\n# Keyspace\r\ndb0:keys=12,expires=3,avg_ttl=4\r\ndbx:keys=1\r\ndb3:keys=1,expires=0\r\n";
        let info = Info(text.to_owned());
        assert_eq!((info.text("redis_version"), info.text("missing")), ("7.0.15".into(), String::new()));
        assert_eq!(info.modules(), [Module { name: "json".into(), version: 20_406 }]);
        let keyspace: Vec<_> =
            info.keyspace().into_iter().map(|(n, keys)| (n, keys.keys, keys.expires)).collect();
        assert_eq!(keyspace, [(0, 12, 3), (3, 1, 0)]);
    }
}
