//! The config: which format, which repository. Written once; its presence is what makes a folder a repository.

use super::{malformed, polynomial};
use crate::crypto::{self, MasterKey};
use crate::id::RepositoryId;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::{Deserialize, Serialize};

/// The version of restic's format that we write.
pub const VERSION: u32 = 2;
/// The version of our own lanes: a newer minor is readable, a newer major is refused.
pub const LANES: &str = "1.0";

/// The config as stored: JSON, sealed, never compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// restic's format, 1 or 2; we write 2.
    pub version: u32,
    /// Names the repository; part of what evidence signs.
    pub id: RepositoryId,
    /// For restic's own chunker, as hexadecimal digits; ours has a table of its own.
    pub chunker_polynomial: String,
    /// `major.minor` of our lanes; absent in repositories that restic made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retoma: Option<String>,
}

impl Config {
    /// A config for a new repository.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        let mut id = [0; 32];
        crypto::random(&mut id)?;
        Ok(Self {
            version: VERSION,
            id: RepositoryId(id),
            chunker_polynomial: format!("{:x}", polynomial::random()?),
            retoma: Some(LANES.to_owned()),
        })
    }

    /// JSON, sealed.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn seal(&self, key: &MasterKey) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|error| Error::internal(format!("config: {error}")))?;
        key.seal(&json)
    }

    /// Opens and checks a stored config.
    ///
    /// # Errors
    /// `Corrupt`, or `Unsupported` with `R0206` when it is newer than this program.
    pub fn open(key: &MasterKey, sealed: &[u8]) -> Result<Self> {
        let json = key.open(sealed)?;
        let config: Self =
            serde_json::from_slice(&json).map_err(|error| malformed(format!("config: {error}")))?;
        config.check_version()?;
        Ok(config)
    }

    fn check_version(&self) -> Result<()> {
        let newer = |what: String| {
            Error::new(ErrorKind::Unsupported, codes::VERSION_TOO_NEW, what)
                .with_hint("use a newer retoma; nothing was changed")
        };
        if !(1..=VERSION).contains(&self.version) {
            return Err(newer(format!(
                "the repository has format version {}, this program knows 1 and 2",
                self.version
            )));
        }
        let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match self.retoma.as_deref() {
            Some(theirs) if major(theirs).is_none_or(|theirs| Some(theirs) > major(LANES)) => {
                Err(newer(format!(
                    "the repository's lanes have version `{}`, this program knows {LANES}",
                    theirs.escape_debug()
                )))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[3; 64])
    }

    #[test]
    fn a_config_round_trips() {
        let config = Config::generate().unwrap();
        assert_eq!(Config::open(&key(), &config.seal(&key()).unwrap()).unwrap(), config);
    }

    #[test]
    fn newer_minor_is_readable_newer_major_is_refused() {
        let with = |version: u32, lanes: Option<&str>| {
            let config = Config { version, retoma: lanes.map(str::to_owned), ..Config::generate().unwrap() };
            Config::open(&key(), &config.seal(&key()).unwrap())
        };
        assert!(with(2, Some("1.7")).is_ok());
        assert!(with(1, None).is_ok());
        assert_eq!(with(2, Some("2.0")).unwrap_err().code(), codes::VERSION_TOO_NEW);
        assert_eq!(with(3, None).unwrap_err().code(), codes::VERSION_TOO_NEW);
        assert!(with(2, Some("x")).is_err());
    }
}
