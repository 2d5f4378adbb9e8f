//! What tells how the password of a key file is wrapped: `recipients/<id>`. `docs/keys.md`, "Recipients".
//!
//! It is read before any key is there, so it can be neither sealed nor signed: nothing in it is secret, and nothing in it is
//! believed that could cost more than a wrong or missing way in. Above all it never says where a token or a share is sent to.

use super::malformed;
use super::time::Time;
use crate::id::{KeyId, RecipientId};
use retoma_core::share::{SetId, Share};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::{Deserialize, Serialize};

/// The largest object that is read as a recipient, in bytes.
pub const LIMIT_BYTES: u64 = 64 * 1024;
/// What is written. A newer one is refused where it matters, and named.
const VERSION: u32 = 1;
/// The longest name of a transit engine or key, and of what the engine gave.
const NAME_LIMIT: usize = 128;
const CIPHERTEXT_LIMIT: usize = 8 * 1024;

/// How one key file's password is had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The key file.
    pub key: KeyId,
    /// When it was made.
    pub created: Time,
    /// How the password is wrapped.
    pub wrapping: Wrapping,
}

/// How a password is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrapping {
    /// It is split.
    Shares(ShareSet),
    /// It is in a file that somebody keeps.
    KeyFile,
    /// The transit engine of `OpenBao` or Vault has sealed it.
    Transit(Sealed),
    /// A later version wraps it in a way that this one does not know.
    Unknown(String),
}

/// What may be known of a set of shares by whoever sees the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareSet {
    /// Which set.
    pub set: SetId,
    /// How many shares open.
    pub threshold: u8,
    /// A hash of each share, in their order: an altered share is told from a true one.
    pub checks: Vec<[u8; 16]>,
}

impl ShareSet {
    /// Whether `share` is one of these.
    pub fn has(&self, share: &Share) -> bool {
        let check = self.checks.get(usize::from(share.index()).wrapping_sub(1));
        share.set() == self.set && check == Some(&share.check())
    }

    /// How many shares there are.
    pub fn total(&self) -> u8 {
        u8::try_from(self.checks.len()).unwrap_or(u8::MAX)
    }
}

/// What a transit engine gave, and the name of its key. Where it is reached is told by who opens, never by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Where the engine is mounted: `transit`.
    pub mount: String,
    /// The name of its key.
    pub name: String,
    /// What it gave: `vault:v1:…`.
    pub ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u32,
    kind: String,
    key: String,
    created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<RawShares>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transit: Option<RawTransit>,
}

#[derive(Serialize, Deserialize)]
struct RawShares {
    set: String,
    threshold: u8,
    checks: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct RawTransit {
    mount: String,
    name: String,
    ciphertext: String,
}

impl Wrapping {
    /// What the format calls it.
    pub fn kind(&self) -> &str {
        match self {
            Self::Shares(_) => "shares",
            Self::KeyFile => "key-file",
            Self::Transit(_) => "transit",
            Self::Unknown(kind) => kind,
        }
    }
}

impl Recipient {
    /// JSON, as stored.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let (mut shares, mut transit) = (None, None);
        match &self.wrapping {
            Wrapping::Shares(set) => {
                let checks = set.checks.iter().map(hex).collect();
                shares = Some(RawShares { set: set.set.to_string(), threshold: set.threshold, checks });
            }
            Wrapping::Transit(Sealed { mount, name, ciphertext }) => {
                let (mount, name, ciphertext) = (mount.clone(), name.clone(), ciphertext.clone());
                transit = Some(RawTransit { mount, name, ciphertext });
            }
            Wrapping::KeyFile | Wrapping::Unknown(_) => {}
        }
        let (kind, key) = (self.wrapping.kind().to_owned(), self.key.to_hex());
        let raw = Raw { version: VERSION, kind, key, created: self.created, shares, transit };
        serde_json::to_vec(&raw).map_err(|error| Error::internal(format!("recipient: {error}")))
    }

    /// Reads one.
    ///
    /// # Errors
    /// `Corrupt` when it is none, or something in it is out of bounds; `Unsupported` when it is of a newer version.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        if json.len() as u64 > LIMIT_BYTES {
            return Err(malformed("recipient: too large"));
        }
        let raw: Raw =
            serde_json::from_slice(json).map_err(|_| malformed("recipient: not the JSON of one"))?;
        if raw.version != VERSION {
            let message = format!("recipient: version {} is not known", raw.version);
            return Err(Error::new(ErrorKind::Unsupported, codes::VERSION_TOO_NEW, message)
                .with_hint("use the version of Retoma that wrote it, or a newer one"));
        }
        let key = KeyId::parse(&raw.key).map_err(|_| malformed("recipient: its key is no id"))?;
        let wrapping = match (raw.kind.as_str(), raw.shares, raw.transit) {
            ("shares", Some(shares), _) => Wrapping::Shares(share_set(&shares)?),
            ("key-file", _, _) => Wrapping::KeyFile,
            ("transit", _, Some(transit)) => Wrapping::Transit(sealed(transit)?),
            ("shares" | "transit", _, _) => {
                return Err(malformed("recipient: what its kind needs is missing"));
            }
            (kind, _, _) if kind.len() <= NAME_LIMIT => Wrapping::Unknown(kind.to_owned()),
            _ => return Err(malformed("recipient: the name of its kind is too long")),
        };
        Ok(Self { key, created: raw.created, wrapping })
    }

    /// The object's name.
    ///
    /// # Errors
    /// None in practice.
    pub fn id(&self) -> Result<RecipientId> {
        Ok(RecipientId::of(&self.to_json()?))
    }
}

fn share_set(raw: &RawShares) -> Result<ShareSet> {
    let set = SetId::parse(&raw.set).ok_or_else(|| malformed("recipient: its set is no set"))?;
    let count = raw.checks.len();
    if raw.threshold == 0 || usize::from(raw.threshold) > count || count > 255 {
        return Err(malformed("recipient: the numbers of its shares are impossible"));
    }
    let checks = raw.checks.iter().map(|check| unhex(check)).collect::<Option<_>>();
    let checks = checks.ok_or_else(|| malformed("recipient: a share's hash is none"))?;
    Ok(ShareSet { set, threshold: raw.threshold, checks })
}

/// Whether `name` may stand in the path of a request, between slashes.
pub fn is_transit_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty()
        && name.len() <= NAME_LIMIT
        && name.chars().all(is_plain)
        && name.chars().any(|c| c != '.')
}

/// Whether `mount` is one or more such names with slashes between them.
pub fn is_transit_mount(mount: &str) -> bool {
    mount.len() <= NAME_LIMIT && mount.split('/').all(is_transit_name)
}

fn sealed(raw: RawTransit) -> Result<Sealed> {
    let is_printed = raw.ciphertext.bytes().all(|c| c.is_ascii_graphic());
    if !is_transit_mount(&raw.mount) || !is_transit_name(&raw.name) {
        return Err(malformed("recipient: the transit engine's key has no such name"));
    }
    if raw.ciphertext.is_empty() || raw.ciphertext.len() > CIPHERTEXT_LIMIT || !is_printed {
        return Err(malformed("recipient: what the transit engine gave is none"));
    }
    Ok(Sealed { mount: raw.mount, name: raw.name, ciphertext: raw.ciphertext })
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let is_written_so =
        text.len() == 32 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    is_written_so.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_wrapping() -> impl Strategy<Value = Wrapping> {
        let checks = proptest::collection::vec(any::<[u8; 16]>(), 1..=255);
        let shares = (any::<[u8; 8]>(), checks).prop_flat_map(|(set, checks)| {
            let count = u8::try_from(checks.len()).unwrap();
            (1..=count).prop_map(move |threshold| {
                Wrapping::Shares(ShareSet { set: SetId(set), threshold, checks: checks.clone() })
            })
        });
        let transit = (
            "[a-z]{1,9}(/[a-z0-9_-]{1,9})?",
            "[A-Za-z][A-Za-z0-9._-]{0,20}",
            "vault:v[0-9]:[A-Za-z0-9+/=]{1,90}",
        )
            .prop_map(|(mount, name, ciphertext)| Wrapping::Transit(Sealed { mount, name, ciphertext }));
        prop_oneof![shares, Just(Wrapping::KeyFile), transit, Just(Wrapping::Unknown("later".to_owned()))]
    }

    proptest! {
        #[test]
        fn a_recipient_is_read_as_it_was_written(wrapping in any_wrapping(), key in any::<[u8; 32]>()) {
            let recipient = Recipient { key: KeyId(key), created: Time::default(), wrapping };
            prop_assert_eq!(Recipient::from_json(&recipient.to_json().unwrap()).unwrap(), recipient);
        }

        #[test]
        fn whatever_is_read_does_no_harm(bytes in any::<Vec<u8>>(), text in "\\PC{0,300}") {
            prop_assert!(Recipient::from_json(&bytes).is_err());
            prop_assert!(Recipient::from_json(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let key = "a".repeat(64);
        let read = |version: u32, kind: &str, rest: &str| {
            let json = format!(
                r#"{{"version":{version},"kind":"{kind}","key":"{key}","created":"2026-01-01T00:00:00Z"{rest}}}"#
            );
            Recipient::from_json(json.as_bytes())
        };
        let check = format!("\"{}\"", "0".repeat(32));
        let shares = |set: &str, threshold: u16, checks: &str| {
            read(
                1,
                "shares",
                &format!(r#","shares":{{"set":"{set}","threshold":{threshold},"checks":[{checks}]}}"#),
            )
        };
        let transit = |mount: &str, name: &str, ciphertext: &str| {
            let rest =
                format!(r#","transit":{{"mount":"{mount}","name":"{name}","ciphertext":"{ciphertext}"}}"#);
            read(1, "transit", &rest)
        };
        assert!(shares(&"0".repeat(16), 1, &check).is_ok());
        assert!(transit("transit", "retoma", "vault:v1:abc").is_ok());
        assert_eq!(read(1, "new", "").unwrap().wrapping, Wrapping::Unknown("new".to_owned()));
        assert_eq!(read(2, "key-file", "").unwrap_err().code(), codes::VERSION_TOO_NEW);
        let many = vec![check.as_str(); 256].join(",");
        for refused in [
            shares("x", 1, &check),
            shares(&"0".repeat(16), 0, &check),
            shares(&"0".repeat(16), 2, &check),
            shares(&"0".repeat(16), 256, &check),
            shares(&"0".repeat(16), 1, &many),
            shares(&"0".repeat(16), 1, "\"00\""),
            transit("..", "retoma", "vault:v1:abc"),
            transit("a//b", "retoma", "vault:v1:abc"),
            transit("transit", "../../auth/token", "vault:v1:abc"),
            transit("transit", "a?b", "vault:v1:abc"),
            transit("transit", "retoma", ""),
            transit("transit", "retoma", "a b"),
            transit("transit", "retoma", &"a".repeat(CIPHERTEXT_LIMIT + 1)),
            read(1, "shares", ""),
            read(1, "transit", ""),
            read(1, &"k".repeat(NAME_LIMIT + 1), ""),
        ] {
            assert_eq!(refused.unwrap_err().code(), codes::MALFORMED);
        }
        assert!(Recipient::from_json(&vec![b' '; 70_000]).is_err());
    }
}
