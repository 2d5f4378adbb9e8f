//! Keys in files and as text.

use super::key;
use retoma_core::{Secret, error::codes};
use retoma_repo::ErrorKind;
use retoma_repo::evidence::{PublicKey, SigningKey};
use retoma_testkit::Folder;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn parse(text: impl Into<String>) -> Result<SigningKey, retoma_repo::Error> {
    SigningKey::parse(&Secret::new(text.into()))
}

#[test]
fn a_key_is_saved_once_and_loaded() {
    let folder = Folder::new();
    let path = folder.join("signing.key");
    key().save_new(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(SigningKey::load(&path).unwrap().public_key(), key().public_key());
    let other = SigningKey::generate().unwrap();
    let error = other.save_new(&path).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::OBJECT_EXISTS));
    assert_eq!(SigningKey::load(&path).unwrap().public_key(), key().public_key());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = Folder::new();
    let path = folder.join("signing.key");
    key().save_new(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = SigningKey::load(&path).unwrap_err();
        assert_eq!(error.code(), codes::SIGNING_KEY_EXPOSED, "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(SigningKey::load(&path).is_ok());
}

#[test]
fn what_is_no_key_is_refused_without_being_repeated() {
    let folder = Folder::new();
    assert_eq!(SigningKey::load(&folder.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(SigningKey::load(folder.path()).unwrap_err().code(), codes::EVIDENCE_KEY);
    let text = key().to_text().expose().clone();
    assert!(parse(format!("\n {text}\r\n")).is_ok());
    for at in 0..text.len() {
        let mut damaged = text.clone().into_bytes();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        let error = parse(&damaged).unwrap_err();
        assert_eq!(error.code(), codes::EVIDENCE_KEY, "{at}");
        assert!(!format!("{error:?}{:?}", error.hint()).contains(&damaged[30..60]));
    }
    for cut in 0..text.len() {
        assert!(parse(&text[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn keys_do_not_print_themselves() {
    let secret = key().to_text();
    assert_eq!(format!("{:?} {secret:?}", key()), "SigningKey(…) Secret(…)");
}

#[test]
fn public_keys_are_what_the_manifest_holds() {
    let public = key().public_key();
    assert_eq!(PublicKey::parse(&public.to_string()).unwrap(), public);
    assert_eq!(PublicKey::from_bytes(&public.to_bytes()).unwrap(), public);
    assert_eq!(public.to_string().len(), 44);
    // The neutral element: a signature by it fits any message.
    let mut weak = [0; 32];
    weak[0] = 1;
    assert_eq!(PublicKey::from_bytes(&weak).unwrap_err().code(), codes::EVIDENCE_KEY);
    for text in ["", "AAAA", &format!("{public} "), key().to_text().expose()] {
        assert_eq!(PublicKey::parse(text).unwrap_err().code(), codes::EVIDENCE_KEY);
    }
}

#[test]
fn a_signing_key_that_is_not_the_pinned_one_is_refused() {
    key().check_pinned(&key().public_key()).unwrap();
    let other = SigningKey::generate().unwrap();
    assert_eq!(other.check_pinned(&key().public_key()).unwrap_err().code(), codes::EVIDENCE_SIGNER);
}
