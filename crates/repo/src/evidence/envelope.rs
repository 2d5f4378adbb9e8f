//! The signed form of a record: exact payload bytes, a signature over them, and whose it is.
//!
//! As text one line of JSON with exactly three fields, all base64:
//! `{"payload":"…","signature":"…","public_key":"…"}`. What is signed is `retoma-evidence/1 <length> <payload>`, with
//! the payload's length in bytes as a decimal number: a signature fits nothing else that anybody signs with the same
//! key, and no byte of the payload can move to another field (the idea is DSSE's pre-authentication encoding).
//!
//! One record has exactly one text. What parses but would be written otherwise (spaces, another order of fields,
//! escapes, base64 with stray bits) is refused, so that the hash of the text names the record.

use super::key::{PublicKey, SigningKey};
use super::malformed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::{Deserialize, Serialize};

/// What every signed message starts with.
const DOMAIN: &str = "retoma-evidence/1";
/// What to do about a record that somebody else signed.
pub(super) const OTHER_KEY: &str = "compare the pinned key with the one that the signer keeps; pin the right one, or take the right writer's file";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    payload: String,
    signature: String,
    public_key: PublicKey,
}

/// A payload whose signature was made or found valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) payload: Vec<u8>,
    pub(super) public_key: PublicKey,
    /// The one text of this envelope, without line end.
    pub(super) text: String,
}

/// The bytes that are signed.
pub(super) fn signed_message(payload: &[u8]) -> Vec<u8> {
    let mut message = format!("{DOMAIN} {} ", payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

impl Envelope {
    pub(super) fn sign(key: &SigningKey, payload: Vec<u8>) -> Result<Self> {
        let public_key = key.public_key();
        let text = write(&Wire {
            signature: STANDARD.encode(key.sign(&signed_message(&payload))),
            payload: STANDARD.encode(&payload),
            public_key,
        })?;
        Ok(Self { payload, public_key, text })
    }

    /// Reads the text of an envelope and checks its signature: by `pinned` where it is given, by the key that the
    /// envelope names otherwise, which proves only that whoever made it has that key.
    ///
    /// # Errors
    /// `Corrupt` with `R0801` (malformed), `R0802` (signature), `R0803` (another key than `pinned`).
    pub(super) fn open(text: &str, pinned: Option<&PublicKey>) -> Result<Self> {
        let wire: Wire =
            serde_json::from_str(text).map_err(|error| malformed(format!("no envelope: {error}")))?;
        let public_key = wire.public_key;
        if let Some(pinned) = pinned.filter(|pinned| **pinned != public_key) {
            let message = format!("it is signed with `{public_key}`, and `{pinned}` is pinned");
            return Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_SIGNER, message).with_hint(OTHER_KEY));
        }
        let decode =
            |text: &str| STANDARD.decode(text).map_err(|error| malformed(format!("base64: {error}")));
        let payload = decode(&wire.payload)?;
        let signature: [u8; 64] =
            decode(&wire.signature)?.try_into().map_err(|_| malformed("the signature is not 64 bytes"))?;
        if !public_key.verifies(&signed_message(&payload), &signature) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                codes::EVIDENCE_SIGNATURE,
                "its signature is not valid",
            )
            .with_hint("the record was changed after it was signed; look for it in another copy or export"));
        }
        if write(&wire)? != text {
            return Err(malformed("the envelope is not written in its one form"));
        }
        Ok(Self { payload, public_key, text: text.to_owned() })
    }
}

fn write(wire: &Wire) -> Result<String> {
    serde_json::to_string(wire).map_err(|error| Error::internal(format!("envelope: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::generate().unwrap()
    }

    proptest! {
        #[test]
        fn signed_payloads_open(payload: Vec<u8>) {
            let key = key();
            let envelope = Envelope::sign(&key, payload.clone()).unwrap();
            let opened = Envelope::open(&envelope.text, Some(&key.public_key())).unwrap();
            prop_assert_eq!(&opened, &envelope);
            prop_assert_eq!(opened.payload, payload);
        }

        #[test]
        fn hostile_text_never_panics(text in ".{0,200}") {
            prop_assert!(Envelope::open(&text, None).is_err());
        }
    }

    #[test]
    fn what_is_signed_is_told_apart_by_domain_and_length() {
        assert_eq!(signed_message(b"{}"), b"retoma-evidence/1 2 {}");
        assert_eq!(signed_message(b""), b"retoma-evidence/1 0 ");
    }

    #[test]
    fn a_signature_over_the_bare_payload_does_not_count() {
        let key = key();
        let text = write(&Wire {
            payload: STANDARD.encode("{}"),
            signature: STANDARD.encode(key.sign(b"{}")),
            public_key: key.public_key(),
        });
        let error = Envelope::open(&text.unwrap(), None).unwrap_err();
        assert_eq!(error.code(), codes::EVIDENCE_SIGNATURE);
    }

    #[test]
    fn another_form_of_the_same_envelope_is_refused() {
        let text = Envelope::sign(&key(), b"{}".to_vec()).unwrap().text;
        for other in [
            format!(" {text}"),
            format!("{text} "),
            text.replacen(':', ": ", 1),
            text.replacen("payload", "p\\u0061yload", 1),
            text.replacen('}', ",\"more\":1}", 1),
        ] {
            assert_eq!(
                Envelope::open(&other, None).unwrap_err().code(),
                codes::EVIDENCE_MALFORMED,
                "{other}"
            );
        }
    }
}
