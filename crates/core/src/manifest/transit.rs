//! The address of a key of `OpenBao`'s or Vault's transit engine.

use super::address;
use std::fmt;

/// `https://host:8200/v1/MOUNT/keys/NAME`, taken apart. It holds no secret and may be printed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransitKey {
    /// Scheme, host and port, without a slash at the end.
    server: String,
    mount: String,
    name: String,
}

impl TransitKey {
    /// Reads the address that the engine's documentation uses for the key itself.
    ///
    /// # Errors
    /// A reason that does not repeat `text`, which may hold a token by mistake.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        address::http(text)
            .map_err(|_| "it is no address like `https://bao.example:8200/v1/transit/keys/NAME`")?;
        let is_encrypted = text.starts_with("https://");
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        if host.contains('@') {
            return Err("a user in the address is not used; the token comes from `VAULT_TOKEN`");
        }
        if !is_encrypted && !matches!(bare, "127.0.0.1" | "localhost" | "[::1]") {
            return Err("the token would cross the network in the clear; write `https://`");
        }
        let Some((mount, name)) = path.strip_prefix("v1/").and_then(|path| path.rsplit_once("/keys/")) else {
            return Err("what follows the host is not `/v1/MOUNT/keys/NAME`");
        };
        if !mount.split('/').all(is_name) || !is_name(name) {
            return Err("the names of the engine and its key have letters, digits, `-`, `_` and `.`");
        }
        Ok(Self { server: format!("{scheme}://{host}"), mount: mount.to_owned(), name: name.to_owned() })
    }

    /// Where the engine is mounted.
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the server runs on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.server.split_once("://").map_or("", |(_, host)| host);
        ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|local| host == *local || host.starts_with(&format!("{local}:")))
    }

    /// The address of an operation: `encrypt` or `decrypt`.
    pub fn operation(&self, operation: &'static str) -> String {
        format!("{}/v1/{}/{operation}/{}", self.server, self.mount, self.name)
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 128 && name.chars().all(is_plain) && name.chars().any(|c| c != '.')
}

impl fmt::Display for TransitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/v1/{}/keys/{}", self.server, self.mount, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "https://bao.example:8200/v1/transit/keys/retoma",
            "https://bao.example/v1/team/a/transit/keys/retoma-1.x",
            "http://127.0.0.1:8200/v1/transit/keys/k",
            "http://localhost/v1/transit/keys/k",
        ] {
            assert_eq!(TransitKey::parse(text).unwrap().to_string(), text);
        }
        let key = TransitKey::parse("https://b:1/v1/team/transit/keys/k").unwrap();
        assert_eq!((key.mount(), key.name(), key.is_local()), ("team/transit", "k", false));
        assert_eq!(key.operation("decrypt"), "https://b:1/v1/team/transit/decrypt/k");
        assert!(TransitKey::parse("http://127.0.0.1:8200/v1/transit/keys/k").unwrap().is_local());
    }

    #[test]
    fn what_would_lead_elsewhere_or_show_the_token_is_refused_without_repeating_it() {
        for text in [
            "hunter2",
            "http://bao.example/v1/transit/keys/k",
            "http://127.0.0.1.evil.example/v1/transit/keys/k",
            "https://user:hunter2@bao.example/v1/transit/keys/k",
            "https://hunter2@bao.example/v1/transit/keys/k",
            "https://bao.example/v1/transit/keys/",
            "https://bao.example/v1/transit/keys/../hunter2",
            "https://bao.example/v1//keys/k",
            "https://bao.example/v1/transit/keys/k?token=hunter2",
            "https://bao.example/transit/keys/k",
            "https://bao.example/v1/transit/k",
            "ftp://bao.example/v1/transit/keys/k",
            "https:///v1/transit/keys/k",
        ] {
            let reason = TransitKey::parse(text).unwrap_err();
            assert!(!reason.contains("hunter2"), "{text}");
        }
    }
}
