//! What each fuzz target does with its input. Shared by `fuzz_targets/` and by `crates/repo/tests/it/fuzz_corpus.rs`,
//! which replays the corpus on every test run.
//!
//! Nothing may panic, and where decoding succeeds, encoding what was decoded must be stable. Inputs are sealed here, so
//! that they get past the authentication code, as those of somebody who has the key do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use retoma_core::Secret;
use retoma_core::manifest::{self, Origin, Problem, Severity};
use retoma_repo::crypto::MasterKey;
use retoma_repo::evidence::{EXPORT_SCHEMA, PublicKey, RecordHash, verify_export};
use retoma_repo::format::config::Config;
use retoma_repo::format::index::{IndexFile, IndexPack};
use retoma_repo::format::key::KeyFile;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::format::{pack, tree};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn key() -> MasterKey {
    MasterKey::from_bytes(&[7; 64])
}

/// Eight bytes: how much lies before the header (little endian). The rest: the header's plaintext.
pub fn pack_header(data: &[u8]) {
    pack::open_header(&key(), data, 0).ok();
    let Some((blobs_bytes, header)) = data.split_first_chunk::<8>() else { return };
    let blobs_bytes = u64::from_le_bytes(*blobs_bytes);
    if let Some(trailer) = header.last_chunk() {
        pack::header_length(*trailer, blobs_bytes).ok();
    }
    let Ok(blobs) = pack::open_header(&key(), &key().seal(header).unwrap(), blobs_bytes) else { return };
    let sealed = pack::seal_header(&key(), &blobs).unwrap();
    assert_eq!(sealed.len(), pack::header_bytes(&blobs));
    let (sealed, trailer) = sealed.split_last_chunk::<{ pack::TRAILER_BYTES }>().unwrap();
    let pack_bytes = blobs_bytes + (sealed.len() + pack::TRAILER_BYTES) as u64;
    assert_eq!(pack::header_length(*trailer, pack_bytes).unwrap() as usize, sealed.len());
    assert_eq!(pack::open_header(&key(), sealed, blobs_bytes).unwrap(), blobs);
}

/// An index file's JSON.
pub fn index(data: &[u8]) {
    let Ok(file) = IndexFile::from_json(data) else { return };
    let sizes: Vec<u64> = file.packs.iter().map(IndexPack::pack_bytes).collect();
    assert_eq!(sizes.len(), file.packs.len());
    assert_eq!(IndexFile::from_json(&file.to_json().unwrap()).unwrap(), file);
}

/// A tree's JSON.
pub fn tree(data: &[u8]) {
    let Ok(nodes) = tree::from_json(data) else { return };
    let json = tree::to_json(&nodes).unwrap();
    let again = tree::from_json(&json).unwrap();
    assert_eq!(tree::to_json(&again).unwrap(), json);
    for (node, again) in nodes.iter().zip(&again) {
        assert_eq!(
            (&node.name, &node.link_target, &node.xattrs),
            (&again.name, &again.link_target, &again.xattrs)
        );
        assert_eq!((node.mode, node.mtime, node.subtree), (again.mode, again.mtime, again.subtree));
    }
}

/// A snapshot's JSON.
pub fn snapshot(data: &[u8]) {
    let Ok(snapshot) = Snapshot::from_json(data) else { return };
    let values = [snapshot.component(), snapshot.kind(), snapshot.manifest_hash()];
    assert!(values.into_iter().flatten().all(|value| value.len() <= data.len()));
    assert_eq!(Snapshot::from_json(&snapshot.to_json().unwrap()).unwrap(), snapshot);
}

/// A key file. It is opened when that is quick, or when its costs are absurd and must be refused quickly.
pub fn key_file(data: &[u8]) {
    let Ok(file) = KeyFile::from_json(data) else { return };
    assert_eq!(KeyFile::from_json(&file.to_json().unwrap()).unwrap(), file);
    let work = u128::from(file.n) * u128::from(file.r) * u128::from(file.p) * 128;
    if work <= 1 << 18 || work > 1 << 30 {
        file.open(&Secret::new("password".to_owned())).ok();
    }
}

/// A config's JSON.
pub fn config(data: &[u8]) {
    Config::open(&key(), data).ok();
    let Ok(config) = Config::open(&key(), &key().seal(data).unwrap()) else { return };
    assert_eq!(Config::open(&key(), &config.seal(&key()).unwrap()).unwrap(), config);
}

/// A manifest. Whatever is wrong with it stands somewhere in it, and is shown without control characters.
pub fn manifest(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: "/srv/marabet".into() };
    let parsed = manifest::parse(&text, &origin);
    let problems = match &parsed {
        Ok(manifest) => {
            assert_eq!(manifest.hash(), manifest::hash(&text));
            assert!(!manifest.repositories.is_empty() && !manifest.components.is_empty());
            assert!(manifest.warnings.iter().all(|problem| problem.severity == Severity::Warning));
            &manifest.warnings
        }
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            problems
        }
    };
    for problem in problems {
        stands_in(&text, problem);
    }
    assert!(problems.is_sorted_by_key(|problem| problem.span.start));
    let shown = manifest::render(problems, "retoma.toml");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    assert_eq!(manifest::parse(&text, &origin), parsed);
}

fn stands_in(text: &str, problem: &Problem) {
    let span = &problem.span;
    assert!(span.start <= span.end && span.end <= text.len(), "{problem:?}");
    assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end), "{problem:?}");
    let before = &text[..span.start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    assert_eq!(problem.line, before.matches('\n').count() + 1, "{problem:?}");
    assert_eq!(problem.column, before[line_start..].chars().count() + 1, "{problem:?}");
    assert_ne!(problem.code, retoma_core::error::codes::INTERNAL, "{problem:?}");
    assert!(!problem.message.is_empty() && !problem.message.ends_with('.'), "{problem:?}");
}

/// Either an export as it stands, or the payloads of one, a line each, which are signed and linked here: `@` in a
/// payload becomes the hash of the record before it, `$` the public key.
pub fn evidence_record(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let named = text.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let named = named.and_then(|header| PublicKey::parse(header["public_key"].as_str()?).ok());
    let key = SigningKey::from_bytes(&[7; 32]);
    let own = PublicKey::from_bytes(key.verifying_key().as_bytes()).unwrap();
    verifies_or_not(&text, named.unwrap_or(own), data.len());
    verifies_or_not(&signed_export(&text, &key), own, data.len());
}

/// An export of these payloads whose first line agrees with the first of them.
fn signed_export(payloads: &str, key: &SigningKey) -> String {
    let public_key = STANDARD.encode(key.verifying_key().as_bytes());
    let (mut head, mut records, mut first) = (String::new(), String::new(), Value::Null);
    for payload in payloads.lines() {
        let payload = payload.replace('@', &head).replace('$', &public_key);
        if records.is_empty() {
            first = serde_json::from_str(&payload).unwrap_or_default();
        }
        let message =
            [format!("retoma-evidence/1 {} ", payload.len()).as_bytes(), payload.as_bytes()].concat();
        let signature = STANDARD.encode(key.sign(&message).to_bytes());
        let payload = STANDARD.encode(&payload);
        // Its one form, in which the fields have this order.
        let envelope = format!(
            "{{\"payload\":\"{payload}\",\"signature\":\"{signature}\",\"public_key\":\"{public_key}\"}}"
        );
        head = RecordHash(Sha256::digest(&envelope).into()).to_string();
        records.extend([&envelope, "\n"]);
    }
    let header = format!(
        "{{\"schema\":{},\"repository_id\":{},\"writer\":{},\"public_key\":{},\"first\":{},\"records\":{},\"head\":{}}}\n",
        json!(EXPORT_SCHEMA),
        first["repository_id"],
        first["writer"],
        json!(public_key),
        first["sequence"],
        payloads.lines().count(),
        json!(head)
    );
    header + &records
}

/// What verifies is bound to its key, to every one of its bytes and to its head.
fn verifies_or_not(text: &str, pinned: PublicKey, at: usize) {
    let Ok(report) = verify_export(text, &pinned, &[]) else { return };
    assert_eq!(report.records, text.lines().count() as u64 - 1);
    assert_eq!(report.head.sequence, report.first + (report.records - 1));
    assert_eq!(verify_export(text, &pinned, &[report.head]).unwrap().head, report.head);
    let mut elsewhere = report.head;
    elsewhere.hash.0[0] ^= 1;
    verify_export(text, &pinned, &[elsewhere]).unwrap_err();
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    verify_export(text, &PublicKey::from_bytes(other.as_bytes()).unwrap(), &[]).unwrap_err();
    let (without_last, _) = text.trim_end().rsplit_once('\n').unwrap();
    verify_export(without_last, &pinned, &[]).unwrap_err();
    // What verifies is JSON of ASCII characters but for the writer's name.
    let at = at.wrapping_mul(0x9e37_79b9) % text.len();
    let mut changed = text.as_bytes().to_vec();
    if changed[at].is_ascii_graphic() {
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        verify_export(std::str::from_utf8(&changed).unwrap(), &pinned, &[]).unwrap_err();
    }
}
