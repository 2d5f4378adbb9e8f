//! Key files: the master key, sealed with a key that scrypt makes from a password.

use super::malformed;
use crate::crypto::{self, MasterKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use retoma_core::{Error, ErrorKind, Result, Secret, error::codes};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// What a key file tells besides the sealed key. restic's field names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    /// When it was made.
    pub created: super::time::Time,
    /// Who made it.
    pub username: String,
    /// Where it was made.
    pub hostname: String,
    /// Always `scrypt`.
    pub kdf: String,
    /// scrypt's cost, a power of two.
    #[serde(rename = "N")]
    pub n: u64,
    /// scrypt's block size.
    pub r: u32,
    /// scrypt's parallelism.
    pub p: u32,
    /// 64 random bytes, base64.
    pub salt: String,
    /// The master key as JSON, sealed, base64.
    pub data: String,
}

/// Where a password comes from decides how dear each guess has to be (`docs/format.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Somebody chose it, and it can be guessed: about 0.1 s and 32 MiB for each derivation, never less.
    Chosen,
    /// 256 random bits, as 64 hexadecimal digits: nobody guesses them, however cheap a guess is, and who opens with them
    /// need not wait.
    Random,
}

impl Origin {
    /// scrypt's cost.
    const fn n(self) -> u64 {
        match self {
            Self::Chosen => 32768,
            Self::Random => 2,
        }
    }
}

const R: u32 = 8;
const P: u32 = 1;
/// The dearest derivation that is believed: a hostile file must not take all memory. 1 GiB.
const LIMIT_BYTES: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct MasterJson {
    mac: MacJson,
    encrypt: Zeroizing<String>,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    k: Zeroizing<String>,
    r: Zeroizing<String>,
}

/// Who makes a key file, for the people who list keys later.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The user's name.
    pub username: String,
    /// The host's name.
    pub hostname: String,
    /// The time.
    pub now: super::time::Time,
}

impl KeyFile {
    /// Seals `master` under `password`.
    ///
    /// # Errors
    /// `Invalid` for an empty password; `Internal` for one that is said to be random and cannot be.
    pub fn create(
        master: &MasterKey,
        password: &Secret<String>,
        origin: Origin,
        maker: Maker,
    ) -> Result<Self> {
        if password.expose().is_empty() {
            return Err(Error::new(ErrorKind::Invalid, codes::SECRET_MISSING, "the password is empty")
                .with_hint("put a password of 16 or more random characters into the file or variable that the manifest names"));
        }
        if origin == Origin::Random && crate::id::unhex(password.expose()).is_none() {
            return Err(Error::internal("a password that is said to be random is not 64 hexadecimal digits"));
        }
        let n = origin.n();
        let mut salt = [0; 64];
        crypto::random(&mut salt)?;
        let sealing = derive(password, &salt, n, R, P)?;
        let encode = |bytes: &[u8]| Zeroizing::new(BASE64.encode(bytes));
        let json = MasterJson {
            mac: MacJson { k: encode(&master.mac_k), r: encode(&master.mac_r) },
            encrypt: encode(&master.encrypt),
        };
        let json = serde_json::to_vec(&json).map_err(|error| Error::internal(format!("key: {error}")))?;
        let data = sealing.seal(&Zeroizing::new(json))?;
        Ok(Self {
            created: maker.now,
            username: maker.username,
            hostname: maker.hostname,
            kdf: "scrypt".to_owned(),
            n,
            r: R,
            p: P,
            salt: BASE64.encode(salt),
            data: BASE64.encode(data),
        })
    }

    /// The master key, when `password` fits; `Ok(None)` when it does not.
    ///
    /// # Errors
    /// `Corrupt` when the file cannot be understood, `Unsupported` for another derivation or absurd costs.
    pub fn open(&self, password: &Secret<String>) -> Result<Option<MasterKey>> {
        if self.kdf != "scrypt" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                codes::MALFORMED,
                format!("key derivation `{}` is not known", self.kdf.escape_debug()),
            ));
        }
        let salt = BASE64.decode(&self.salt).map_err(|_| malformed("key: the salt is not base64"))?;
        let data = BASE64.decode(&self.data).map_err(|_| malformed("key: the data are not base64"))?;
        let sealing = derive(password, &salt, self.n, self.r, self.p)?;
        let Ok(json) = sealing.open(&data).map(Zeroizing::new) else { return Ok(None) };
        let json: MasterJson =
            serde_json::from_slice(&json).map_err(|_| malformed("key: not the JSON of a key"))?;
        let mut bytes = Zeroizing::new([0; 64]);
        for (part, text) in [(0..32, &json.encrypt), (32..48, &json.mac.k), (48..64, &json.mac.r)] {
            let decoded = BASE64.decode(text.as_bytes()).map(Zeroizing::new);
            match decoded {
                Ok(decoded) if decoded.len() == part.len() => bytes[part].copy_from_slice(&decoded),
                _ => return Err(malformed("key: a part has another length")),
            }
        }
        Ok(Some(MasterKey::from_bytes(&bytes)))
    }

    /// How much work it takes to try a password on it, in blocks of scrypt. For an order only: hostile costs are refused when
    /// they would be paid.
    pub fn work(&self) -> u64 {
        self.n.saturating_mul(u64::from(self.r)).saturating_mul(u64::from(self.p))
    }

    /// JSON, as stored: a key file is not sealed itself.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal(format!("key: {error}")))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// `Corrupt` when it is not the JSON of a key.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| malformed(format!("key: {error}")))
    }
}

fn derive(password: &Secret<String>, salt: &[u8], n: u64, r: u32, p: u32) -> Result<MasterKey> {
    let refused = || {
        Error::new(
            ErrorKind::Unsupported,
            codes::MALFORMED,
            format!("scrypt with N = {n}, r = {r}, p = {p} is refused"),
        )
    };
    let memory = n.checked_mul(u64::from(r)).and_then(|blocks| blocks.checked_mul(128));
    let work = memory.and_then(|memory| memory.checked_mul(u64::from(p)));
    if !n.is_power_of_two() || n < 2 || work.is_none_or(|work| work == 0 || work > LIMIT_BYTES) {
        return Err(refused());
    }
    let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| refused())?;
    let parameters = scrypt::Params::new(log_n, r, p).map_err(|_| refused())?;
    let mut bytes = [0; 64];
    scrypt::scrypt(password.expose().as_bytes(), salt, &parameters, &mut bytes).map_err(|_| refused())?;
    let key = MasterKey::from_bytes(&bytes);
    bytes.zeroize();
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        Maker { username: "u".into(), hostname: "h".into(), now: super::super::time::Time::default() }
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn the_right_password_opens_and_another_does_not() {
        let master = MasterKey::generate().unwrap();
        let file = KeyFile::create(&master, &secret("correct"), Origin::Chosen, maker()).unwrap();
        let file = KeyFile::from_json(&file.to_json().unwrap()).unwrap();
        let opened = file.open(&secret("correct")).unwrap().unwrap();
        assert_eq!(opened.subkey("x"), master.subkey("x"));
        assert!(file.open(&secret("wrong")).unwrap().is_none());
        assert_eq!((file.n, file.r), (32768, 8));
    }

    #[test]
    fn an_empty_password_is_refused() {
        let error = KeyFile::create(&MasterKey::from_bytes(&[0; 64]), &secret(""), Origin::Chosen, maker())
            .unwrap_err();
        assert_eq!(error.code(), codes::SECRET_MISSING);
    }

    #[test]
    fn only_what_can_be_random_is_derived_cheaply() {
        let master = MasterKey::generate().unwrap();
        let random = secret(&"0123456789abcdef".repeat(4));
        let file = KeyFile::create(&master, &random, Origin::Random, maker()).unwrap();
        assert_eq!((file.n, file.r, file.p), (2, 8, 1));
        assert!(file.open(&random).unwrap().is_some());
        assert!(file.open(&secret(&"0".repeat(64))).unwrap().is_none());
        for chosen in
            ["correct horse battery staple", &"0123456789abcde".repeat(4), &"0123456789abcdeg".repeat(4)]
        {
            let error = KeyFile::create(&master, &secret(chosen), Origin::Random, maker()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{chosen}");
        }
    }

    #[test]
    fn absurd_costs_are_refused_before_memory_is_taken() {
        for (n, r, p) in
            [(1 << 40, 8, 1), (32768, u32::MAX, 1), (32768, 8, u32::MAX), (3, 8, 1), (0, 8, 1), (32768, 0, 1)]
        {
            assert_eq!(derive(&secret("x"), b"salt", n, r, p).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
