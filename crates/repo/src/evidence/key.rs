//! Keys of evidence: Ed25519. The signing key never lies in the repository; the public key is pinned outside of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, Secret, error::codes};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// How the text of a signing key starts, so that people and scanners for secrets know what it is.
const SIGNING_KEY_MARK: &str = "retoma-signing-key-1:";
/// No signing key's file is longer.
const FILE_LIMIT_BYTES: u64 = 4096;

fn bad_key(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, codes::EVIDENCE_KEY, message)
}

/// The key that verifies records. Written as 32 bytes in standard base64, as in the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of these bytes, as the manifest's `public_key` holds them.
    ///
    /// # Errors
    /// `Invalid` with `R0810` when they are no key, or one under which a signature fits several messages.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() && key.to_edwards().compress().as_bytes() == bytes => Ok(Self(key)),
            _ => Err(bad_key("the public key is not an Ed25519 key")
                .with_hint("take the public key that belongs to the signing key")),
        }
    }

    /// Reads 32 bytes in standard base64.
    ///
    /// # Errors
    /// `Invalid` with `R0810`. The text is not repeated: it may be a secret that was pasted by mistake.
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| {
            bad_key("the public key is not 32 bytes in base64")
                .with_hint("it is 44 characters that end with `=`")
        })?;
        Self::from_bytes(&bytes)
    }

    /// The 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whether `signature` is this key's over `message`. Strict: no second form of a signature passes.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl TryFrom<String> for PublicKey {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// The key that signs records. Never printed; overwritten when dropped.
///
/// As text: `retoma-signing-key-1:` and 64 bytes in base64, the secret seed and the public key, so that a damaged text
/// is noticed. One line, so that `env:NAME` holds it as well as `file:PATH`.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        crate::crypto::random(&mut *seed)?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// Reads the text of a key; spaces and line ends around it do not matter.
    ///
    /// # Errors
    /// `Invalid` with `R0810`, without repeating the text.
    pub fn parse(text: &Secret<String>) -> Result<Self> {
        let text = text.expose().trim();
        let encoded = text.strip_prefix(SIGNING_KEY_MARK).ok_or_else(|| {
            bad_key("the signing key is malformed")
                .with_hint("it is one line that starts with `retoma-signing-key-1:`")
        })?;
        let damaged =
            || bad_key("the signing key is damaged").with_hint("take it from where it is kept safe");
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| damaged())?);
        let mut pair = Zeroizing::new([0; 64]);
        if bytes.len() != pair.len() {
            return Err(damaged());
        }
        pair.copy_from_slice(&bytes);
        ed25519_dalek::SigningKey::from_keypair_bytes(&pair).map(Self).map_err(|_| damaged())
    }

    /// Reads the key's text from a file that nobody but its owner may read.
    ///
    /// # Errors
    /// `Unauthorized` with `R0811` when others may read or write it; `Invalid` with `R0810`; what the system says.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let load = || {
            let file = File::open(path).map_err(|error| Error::io(shown.to_string(), error))?;
            let metadata = file.metadata().map_err(|error| Error::io(shown.to_string(), error))?;
            if !metadata.is_file() {
                return Err(bad_key(format!("`{shown}` is not a file")));
            }
            if metadata.mode() & 0o077 != 0 {
                let message =
                    format!("`{shown}` has mode {:04o}: others can use it", metadata.mode() & 0o7777);
                return Err(Error::new(ErrorKind::Unauthorized, codes::SIGNING_KEY_EXPOSED, message)
                    .with_hint("make a new key if anybody could have read it, and give the file mode 0600"));
            }
            let mut text = Zeroizing::new(String::with_capacity(256));
            file.take(FILE_LIMIT_BYTES)
                .read_to_string(&mut text)
                .map_err(|error| Error::io(shown.to_string(), error))?;
            Self::parse(&Secret::new(text.as_str().to_owned()))
        };
        load().context("read the signing key")
    }

    /// Writes the key's text to a new file of mode 0600. Durable on return; the file is there whole or not at all.
    ///
    /// # Errors
    /// `Conflict` with `R0302` when there is a file of that name; what the system says.
    pub fn save_new(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let number =
            getrandom::u64().map_err(|error| Error::io("random numbers", std::io::Error::other(error)))?;
        let temporary = folder.join(format!("#{number:016x}"));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(format!("{}\n", self.to_text().expose()).as_bytes())?;
            file.sync_all()?;
            // A hard link never replaces what is there.
            std::fs::hard_link(&temporary, path)?;
            Ok(())
        };
        let written: std::io::Result<()> = write();
        let removed = std::fs::remove_file(&temporary);
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let message = format!("`{}` exists already", path.display());
                return Err(Error::new(ErrorKind::Conflict, codes::OBJECT_EXISTS, message)
                    .with_hint("a signing key is never overwritten; choose another name"));
            }
            written => written.and(removed),
        }
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| Error::io(path.display(), error))
        .context("write the signing key")
    }

    /// The key as text; see the type.
    pub fn to_text(&self) -> Secret<String> {
        let pair = Zeroizing::new(self.0.to_keypair_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(*pair));
        Secret::new([SIGNING_KEY_MARK, &encoded].concat())
    }

    /// The key that verifies what this one signs.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Refuses a signing key whose records the pinned key would not verify.
    ///
    /// # Errors
    /// `Invalid` with `R0803`.
    pub fn check_pinned(&self, pinned: &PublicKey) -> Result<()> {
        if self.public_key() == *pinned {
            return Ok(());
        }
        let message = format!("the signing key belongs to `{}`, and `{pinned}` is pinned", self.public_key());
        Err(Error::new(ErrorKind::Invalid, codes::EVIDENCE_SIGNER, message).with_hint(
            "use the signing key that belongs to the manifest's `public_key`, or pin the other one",
        ))
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}
