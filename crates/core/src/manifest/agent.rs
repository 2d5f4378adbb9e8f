//! What the agent does besides backups, and whom it tells: `[agent]` and `[alerts]`.

use super::mail::Email;
use super::secret_ref::SecretRef;
use crate::units::Duration;
// Types of addresses: no effect is in them.
use core::net::{Ipv4Addr, SocketAddr};

/// Where the agent answers when the manifest says nothing.
pub(super) const LISTEN: &str = "127.0.0.1:9840";
/// The same as an address.
const LISTEN_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9840);

/// What `[agent]` says; the defaults where it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOptions {
    /// Where `/metrics` and `/healthz` are answered. Beyond this machine only with a token.
    pub listen: SocketAddr,
    /// What a request must carry.
    pub token: Option<SecretRef>,
    /// From one `forget` and `prune` to the next.
    pub retention_every: Duration,
    /// From one `verify` to the next.
    pub verify_every: Duration,
    /// The share of the packs that is read, in per cent.
    pub verify_sample_percent: u8,
    /// From one `wal check` to the next.
    pub wal_check_every: Duration,
    /// From one copy into a repository that is one to the next.
    pub copy_every: Duration,
    /// From one mark in a server to the next.
    pub marks_every: Duration,
    /// The scenario that is drilled.
    pub drill: Option<String>,
    /// From one drill to the next.
    pub drill_every: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            listen: LISTEN_ADDRESS.into(),
            token: None,
            retention_every: Duration::from_minutes(24 * 60),
            verify_every: Duration::from_minutes(7 * 24 * 60),
            verify_sample_percent: 5,
            wal_check_every: Duration::from_minutes(5),
            copy_every: Duration::HOUR,
            marks_every: Duration::from_seconds(10),
            drill: None,
            drill_every: Duration::from_minutes(7 * 24 * 60),
        }
    }
}

/// What `[alerts]` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertOptions {
    /// Gets JSON when alerts begin or end.
    pub webhook: Option<Receiver>,
    /// Alertmanager's address, without the path of its interface.
    pub alertmanager: Option<Receiver>,
    /// Gets a GET while all is well.
    pub dead_man: Option<Receiver>,
    /// Gets a mail when alerts begin or end.
    pub email: Option<Email>,
}

/// An address over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// As written.
    Literal(String),
    /// Found elsewhere; it holds a secret.
    Reference(SecretRef),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_address_is_the_documented_one() {
        assert_eq!(AgentOptions::default().listen.to_string(), LISTEN);
    }
}
