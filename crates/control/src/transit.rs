//! A password that the transit engine of `OpenBao` or Vault wraps: the engine's key never leaves it, and who may decrypt is decided
//! and logged there. `docs/keys.md`, "Transit".
//!
//! The address comes from who calls, never from the repository: what somebody wrote there must not choose where the token goes.

use crate::{open, probe};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use retoma_core::manifest::{SecretRef, TransitKey};
use retoma_core::{Error, ErrorKind, Result, Secret, error::codes};
use retoma_repo::format::recipient::{Sealed, Wrapping};
use retoma_repo::store::BlockingStore;
use retoma_repo::{Repository, recipients};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// One answer may take so long.
const LIMIT: Duration = Duration::from_secs(30);
const ANSWER_LIMIT_BYTES: u64 = 64 * 1024;

/// Has `password` wrapped.
///
/// # Errors
/// `R0102` without a token; `R0234` about the engine.
pub fn wrap(key: &TransitKey, password: &Secret<String>) -> Result<Wrapping> {
    let plaintext = Zeroizing::new(BASE64.encode(password.expose()));
    let ciphertext =
        call(key, "encrypt", &[("plaintext", &plaintext)])?.data.ciphertext.clone().unwrap_or_default();
    let sealed = Sealed { mount: key.mount().to_owned(), name: key.name().to_owned(), ciphertext };
    if sealed.ciphertext.is_empty() {
        return Err(
            failed(key, ErrorKind::Invalid, "gave no ciphertext").with_hint("is this the transit engine?")
        );
    }
    Ok(Wrapping::Transit(sealed))
}

/// Opens the repository with what the engine unwraps, and gives the password.
///
/// # Errors
/// `R0202` when nothing here was wrapped with this key, or nothing of it opens; `R0102` without a token; `R0234` about the engine;
/// otherwise as [`Repository::open`].
pub fn open(store: &BlockingStore, key: &TransitKey) -> Result<(Repository, Secret<String>)> {
    let known = recipients::read(store)?;
    let mut last = None;
    for sealed in
        known.sealed().filter(|it| (it.mount.as_str(), it.name.as_str()) == (key.mount(), key.name()))
    {
        let password = match unwrap(key, sealed) {
            Ok(password) => password,
            // One that the engine does not take may be a forgery beside the true one.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                last = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        match Repository::open(store.clone(), &password) {
            Err(error) if error.code() == codes::WRONG_KEY => last = Some(error),
            other => return other.map(|repository| (repository, password)),
        }
    }
    let place = store.store().location();
    Err(last.unwrap_or_else(|| {
        let message = format!("no key of the repository at `{place}` was wrapped by `{key}`");
        Error::new(ErrorKind::Unauthorized, codes::WRONG_KEY, message)
            .with_hint("`retoma key list` shows by which; open it with another way in and add one: `retoma key add --transit URL`")
    }))
}

fn unwrap(key: &TransitKey, sealed: &Sealed) -> Result<Secret<String>> {
    let answer = call(key, "decrypt", &[("ciphertext", &sealed.ciphertext)])?;
    let plaintext = Zeroizing::new(answer.data.plaintext.clone().unwrap_or_default());
    let bytes = BASE64.decode(plaintext.as_bytes()).unwrap_or_default();
    let text = String::from_utf8(bytes).ok().filter(|text| !text.is_empty());
    text.map(Secret::new).ok_or_else(|| failed(key, ErrorKind::Invalid, "gave no password"))
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    ciphertext: Option<String>,
    #[serde(default)]
    plaintext: Option<String>,
}

impl Drop for Data {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

/// The token, from where the engine's own program has it.
fn token() -> Result<Secret<String>> {
    for name in ["VAULT_TOKEN", "BAO_TOKEN"] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            return open::secret(&SecretRef::Env(name.to_owned()));
        }
    }
    let file = std::env::home_dir().map(|home| home.join(".vault-token")).filter(|file| file.is_file());
    file.map_or_else(
        || {
            Err(Error::new(
                ErrorKind::Invalid,
                codes::SECRET_MISSING,
                "there is no token for the transit engine",
            )
            .with_hint("set it for this command: `export VAULT_TOKEN=…`, or log in with `bao login`"))
        },
        |file| open::secret(&SecretRef::File(file)),
    )
}

fn call(key: &TransitKey, operation: &'static str, fields: &[(&str, &str)]) -> Result<Answer> {
    let token = token()?;
    let body: serde_json::Map<_, _> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let body = Zeroizing::new(serde_json::Value::Object(body).to_string());
    let mut request = probe::agent(LIMIT).post(key.operation(operation));
    request = request.header("x-vault-token", token.expose()).header("content-type", "application/json");
    if let Ok(namespace) = std::env::var("VAULT_NAMESPACE") {
        request = request.header("x-vault-namespace", namespace);
    }
    let mut answer = request.send(body.as_str()).map_err(|error| unreachable(key, &error))?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(ANSWER_LIMIT_BYTES).read_to_string().map(Zeroizing::new);
    let text = text.map_err(|error| unreachable(key, &error))?;
    match status {
        200 => serde_json::from_str(&text)
            .map_err(|_| failed(key, ErrorKind::Invalid, "gave no answer of a transit engine")),
        _ => Err(refused(key, operation, status)),
    }
}

fn refused(key: &TransitKey, operation: &str, status: u16) -> Error {
    match status {
        403 => failed(key, ErrorKind::Unauthorized, &format!("does not let this token {operation}"))
            .with_hint("log in anew, or give the token's policy `update` on the path; a token that has expired is refused in the same way"),
        400 => failed(key, ErrorKind::Invalid, &format!("cannot {operation} this"))
            .with_hint("the key was made anew, or its older versions were destroyed; open the repository with another way in"),
        404 => failed(key, ErrorKind::Invalid, "is not there")
            .with_hint("look at the address; `bao secrets enable transit` and `bao write -f transit/keys/NAME` make it"),
        _ => failed(key, ErrorKind::Unavailable, &format!("answers with status {status}"))
            .with_hint("look at the server: `bao status`; a sealed one answers with 503"),
    }
}

fn unreachable(key: &TransitKey, error: &ureq::Error) -> Error {
    // What the client says holds no header and no body.
    failed(key, ErrorKind::Unavailable, &format!("cannot be asked: {error}"))
        .with_hint("look whether the server runs and is reached from here; another way in opens the repository meanwhile")
}

fn failed(key: &TransitKey, kind: ErrorKind, what: &str) -> Error {
    Error::new(kind, codes::TRANSIT, format!("the transit key `{key}` {what}"))
}
