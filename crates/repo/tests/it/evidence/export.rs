//! Exports: whatever is done to the text is refused.

use super::{chain_of, draft, key, repository};
use base64::Engine as _;
use proptest::prelude::*;
use retoma_core::error::{Code, codes};
use retoma_repo::evidence::{
    Anchor, Chain, Draft, Outcome, PublicKey, Record, RecordHash, SigningKey, What, export, verify_export,
};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Four records of one chain.
static RECORDS: LazyLock<Vec<Record>> = LazyLock::new(|| chain_of(&repository(), "ana", &key(), 4).1);

fn text() -> String {
    export(&*RECORDS).unwrap()
}

fn check(text: &str, anchors: &[Anchor]) -> Result<(), Code> {
    verify_export(text, &key().public_key(), anchors).map(|_| ()).map_err(|error| error.code())
}

/// An export of these envelopes by somebody who makes the first line fit.
fn forged(envelopes: &[&str], head: RecordHash, first: u64) -> String {
    let text = text();
    let mut header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    header["records"] = json!(envelopes.len());
    header["head"] = json!(head);
    header["first"] = json!(first);
    let fields = ["schema", "repository_id", "writer", "public_key", "first", "records", "head"];
    let fields: Vec<String> = fields.iter().map(|name| format!("\"{name}\":{}", header[name])).collect();
    format!("{{{}}}\n{}\n", fields.join(","), envelopes.join("\n"))
}

fn forged_of(records: &[&Record]) -> String {
    let envelopes: Vec<&str> = records.iter().map(|record| record.envelope()).collect();
    forged(&envelopes, records[records.len() - 1].hash(), records[0].sequence())
}

#[test]
fn an_export_is_verified_with_the_public_key_alone() {
    let records = &*RECORDS;
    assert_eq!(text(), forged_of(&records.iter().collect::<Vec<_>>()), "the forger's hand is steady");
    let report = verify_export(&text(), &key().public_key(), &[]).unwrap();
    assert_eq!((report.records, report.first, report.writer.as_str()), (4, 1, "ana"));
    assert_eq!((report.from, report.to), (draft(1).time, draft(4).time));
    assert_eq!(report.head, records[3].anchor());
    assert!(report.clock_went_back.is_empty());
    let backups = report.controls.iter().find(|coverage| coverage.control.id == "CP-9").unwrap();
    assert_eq!((backups.supporting, backups.deviating), (4, 0));
    insta::assert_snapshot!(report.not_proven.join("\n"), @r"
    that record 4 was the last one: without an anchor kept elsewhere, a cut tail cannot be seen
    that the signer's clock was right, and that what it measured is true
    that nobody else had the signing key
    ");
}

#[test]
fn line_ends_of_another_system_do_no_harm() {
    assert_eq!(check(&text().replace('\n', "\r\n"), &[]), Ok(()));
    assert_eq!(check(text().trim_end(), &[]), Ok(()));
}

#[test]
fn every_changed_byte_is_refused() {
    let text = text();
    for at in 0..text.len() {
        for mask in [1_u8, 0x20] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= mask;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(check(&changed, &[]).is_err(), "byte {at} ^ {mask}");
        }
    }
}

#[test]
fn every_cut_is_refused_but_that_of_the_last_line_end() {
    let text = text();
    for length in 0..text.len() - 1 {
        assert!(check(&text[..length], &[]).is_err(), "{length}");
    }
}

#[test]
fn records_that_are_swapped_dropped_or_repeated_are_refused() {
    let [a, b, c, d] = &RECORDS[..] else { panic!() };
    for (records, code) in [
        (vec![a, c, b, d], codes::EVIDENCE_SEQUENCE),
        (vec![a, b, d], codes::EVIDENCE_SEQUENCE),
        (vec![a, b, b, c, d], codes::EVIDENCE_SEQUENCE),
        (vec![a, b, c, d, a], codes::EVIDENCE_SEQUENCE),
        (vec![d, c, b, a], codes::EVIDENCE_SEQUENCE),
    ] {
        assert_eq!(check(&forged_of(&records), &[]), Err(code));
        assert_eq!(export(records).unwrap_err().code(), code);
    }
}

#[test]
fn a_dropped_head_is_declared_and_never_renumbered() {
    let [a, b, c, d] = &RECORDS[..] else { panic!() };
    let later = forged_of(&[b, c, d]);
    let report = verify_export(&later, &key().public_key(), &[]).unwrap();
    assert_eq!((report.first, report.records), (2, 3));
    assert!(report.not_proven[0].starts_with("what records 1 to 1 say"));
    let pretended = forged(&[b.envelope(), c.envelope(), d.envelope()], d.hash(), 1);
    assert_eq!(check(&pretended, &[]), Err(codes::EVIDENCE_SEQUENCE));
    assert_eq!(check(&later, &[a.anchor()]), Ok(()), "the first link names the record before it");
    let other = Anchor { hash: b.hash(), ..a.anchor() };
    assert_eq!(check(&later, &[other]), Err(codes::EVIDENCE_ANCHOR));
}

#[test]
fn a_cut_tail_is_seen_with_an_anchor_only() {
    let [a, b, c, d] = &RECORDS[..] else { panic!() };
    let lines: Vec<String> = text().lines().take(4).map(str::to_owned).collect();
    assert_eq!(check(&lines.join("\n"), &[]), Err(codes::EVIDENCE_INCOMPLETE), "the first line tells");
    let cut = forged_of(&[a, b, c]);
    assert_eq!(check(&cut, &[]), Ok(()), "a forger changes the first line too");
    assert_eq!(check(&cut, &[b.anchor(), c.anchor()]), Ok(()));
    assert_eq!(check(&cut, &[d.anchor()]), Err(codes::EVIDENCE_ANCHOR));
    let other = Anchor { hash: RecordHash([7; 32]), ..c.anchor() };
    assert_eq!(check(&text(), &[other]), Err(codes::EVIDENCE_ANCHOR));
}

#[test]
fn records_of_other_chains_are_refused() {
    let [a, b, ..] = &RECORDS[..] else { panic!() };
    let there = repository();
    let (_, elsewhere) = chain_of(&there, "ana", &key(), 4);
    let (_, of_bob) = chain_of(&there, "bob", &key(), 4);
    assert_eq!(check(&forged_of(&[a, b, &elsewhere[2]]), &[]), Err(codes::EVIDENCE_MISPLACED));
    let mixed = export([&elsewhere[0], &of_bob[1]]).unwrap_err();
    assert_eq!(mixed.code(), codes::EVIDENCE_MISPLACED);
    assert_eq!(check(&forged_of(&elsewhere.iter().collect::<Vec<_>>()), &[]), Err(codes::EVIDENCE_MISPLACED));
}

#[test]
fn another_key_is_refused_wherever_it_stands() {
    let [a, b, ..] = &RECORDS[..] else { panic!() };
    let other = SigningKey::generate().unwrap();
    let (_, foreign) = chain_of(&repository(), "ana", &other, 3);
    assert_eq!(check(&forged_of(&[a, b, &foreign[2]]), &[]), Err(codes::EVIDENCE_SIGNER));
    let all = export(&foreign).unwrap();
    assert_eq!(check(&all, &[]), Err(codes::EVIDENCE_SIGNER));
    let renamed = all.replace(&other.public_key().to_string(), &key().public_key().to_string());
    assert_eq!(check(&renamed, &[]), Err(codes::EVIDENCE_SIGNATURE));
}

#[test]
fn an_old_record_cannot_be_played_again_at_a_new_place() {
    let records = &*RECORDS;
    let envelope: Value = serde_json::from_str(records[0].envelope()).unwrap();
    let engine = base64::engine::general_purpose::STANDARD;
    let payload = engine.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let payload = String::from_utf8(payload).unwrap();
    let link = format!("\"sequence\":5,\"previous\":\"{}\"", records[3].hash());
    let replayed = payload.replace("\"sequence\":1,\"previous\":null", &link);
    assert_ne!(replayed, payload);
    let envelope = format!(
        "{{\"payload\":\"{}\",\"signature\":{},\"public_key\":{}}}",
        engine.encode(replayed),
        envelope["signature"],
        envelope["public_key"]
    );
    let mut envelopes: Vec<&str> = records.iter().map(Record::envelope).collect();
    envelopes.push(&envelope);
    assert_eq!(check(&forged(&envelopes, records[3].hash(), 1), &[]), Err(codes::EVIDENCE_SIGNATURE));
}

#[test]
fn errors_name_line_and_record() {
    let lines = text();
    let mut lines: Vec<&str> = lines.lines().collect();
    lines[3] = "{}";
    let error = verify_export(&lines.join("\n"), &key().public_key(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("verify line 4, record 3: no envelope: "), "{error}");
}

#[test]
fn other_schemas_are_told_from_damage() {
    let newer = text().replacen("evidence-export/1", "evidence-export/2", 1);
    assert_eq!(check(&newer, &[]), Err(codes::EVIDENCE_SCHEMA));
    for nothing in ["", "\n", "{}", "null", "[]", "\u{feff}"] {
        assert_eq!(check(nothing, &[]), Err(codes::EVIDENCE_MALFORMED), "{nothing:?}");
    }
    assert_eq!(export([]).unwrap_err().code(), codes::EVIDENCE_INCOMPLETE);
    let empty = forged(&[], RecordHash([0; 32]), 1).trim_end().to_owned();
    assert_eq!(check(&empty, &[]), Err(codes::EVIDENCE_INCOMPLETE));
}

/// The seeds of the fuzzer. Those that were valid once must stay so: they are the format.
#[test]
fn exports_kept_from_earlier_versions_still_verify() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/evidence_record");
    let (mut valid, mut broken) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let pinned = text.lines().next().and_then(|line| {
            let header: Value = serde_json::from_str(line).ok()?;
            PublicKey::parse(header["public_key"].as_str()?).ok()
        });
        let result = verify_export(&text, &pinned.unwrap_or(key().public_key()), &[]);
        match path.file_name().unwrap().to_str().unwrap().split_once('-') {
            Some(("valid", _)) => {
                result.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
                valid += 1;
            }
            Some(("broken", _)) => {
                assert!(result.is_err(), "{}", path.display());
                broken += 1;
            }
            // What the fuzzer found; it may be either.
            _ => {}
        }
    }
    assert!(valid >= 3 && broken >= 5, "{valid} {broken}");
}

/// Anybody can check a record with nothing of ours.
#[test]
fn openssl_verifies_a_record() {
    let Some(openssl) = retoma_testkit::require_tool("openssl") else { return };
    let engine = base64::engine::general_purpose::STANDARD;
    let folder = retoma_testkit::Folder::new();
    let envelope: Value = serde_json::from_str(RECORDS[1].envelope()).unwrap();
    let decode = |field: &str| engine.decode(envelope[field].as_str().unwrap()).unwrap();
    let payload = decode("payload");
    let mut message = format!("retoma-evidence/1 {} ", payload.len()).into_bytes();
    message.extend(&payload);
    // RFC 8410: what stands before the 32 bytes of an Ed25519 key in DER.
    let mut public = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    public.extend(key().public_key().to_bytes());
    let run = |message: &[u8]| {
        std::fs::write(folder.join("message"), message).unwrap();
        std::fs::write(folder.join("signature"), decode("signature")).unwrap();
        std::fs::write(folder.join("public.der"), &public).unwrap();
        std::process::Command::new(&openssl)
            .args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "public.der"])
            .args(["-rawin", "-in", "message", "-sigfile", "signature"])
            .current_dir(folder.path())
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(run(&message));
    assert!(!run(&payload), "a signature is never over the bare payload");
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let what = prop_oneof![
        Just(What::Backup),
        Just(What::Drill),
        Just(What::Recover),
        "[a-z]{1,12}".prop_map(|name| serde_json::from_value(json!(name)).unwrap()),
    ];
    let outcome = prop_oneof![Just(Outcome::Passed), Just(Outcome::Failed), Just(Outcome::Incomplete)];
    let details = prop_oneof![
        Just(Value::Null),
        any::<f64>().prop_map(|number| json!({ "number": number })),
        any::<i64>().prop_map(|number| json!([number])),
        ".{0,40}".prop_map(|text| json!({ text.clone(): text })),
    ];
    let one = (0_u64..1_000_000, ".{0,20}", what, outcome, details, any::<u64>());
    let one = one.prop_map(|(time, tool_version, what, outcome, details, data_bytes)| {
        let mut draft = Draft { tool_version, what, outcome, details, ..draft(time) };
        draft.subject.components[0].data_bytes = data_bytes;
        draft
    });
    prop::collection::vec(one, 1..8)
}

fn written(drafts: &[Draft]) -> (Chain, Vec<Record>) {
    static REPOSITORY: LazyLock<retoma_repo::Repository> = LazyLock::new(repository);
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let writer = format!("w{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let chain = Chain::open(&REPOSITORY, &writer).unwrap();
    let records = drafts.iter().map(|draft| chain.append(&key(), draft).unwrap()).collect();
    (chain, records)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_chain_is_stored_exported_and_verified(drafts in drafts()) {
        let (chain, records) = written(&drafts);
        for (draft, record) in drafts.iter().zip(&records) {
            let payload = record.payload();
            prop_assert_eq!((&payload.time, &payload.tool_version), (&draft.time, &draft.tool_version));
            prop_assert_eq!((&payload.what, &payload.outcome), (&draft.what, &draft.outcome));
            prop_assert_eq!((&payload.subject, &payload.details), (&draft.subject, &draft.details));
        }
        let stored: Vec<_> = chain.newest_first().unwrap().map(Result::unwrap).collect();
        prop_assert!(stored.iter().rev().eq(&records));
        let anchors: Vec<_> = records.iter().map(Record::anchor).collect();
        let report = verify_export(&export(&records).unwrap(), &key().public_key(), &anchors).unwrap();
        prop_assert_eq!(report.records, drafts.len() as u64);
    }

    #[test]
    fn any_changed_text_is_refused(drafts in drafts(), at: prop::sample::Index, with: char) {
        let (_, records) = written(&drafts);
        let text = export(&records).unwrap();
        let at = at.index(text.len() - 1);
        let mut changed = text.clone();
        changed.replace_range(at..=at, &with.to_string());
        prop_assume!(changed != text);
        prop_assert!(check(&changed, &[]).is_err());
    }

    #[test]
    fn hostile_text_never_panics(text in ".{0,300}", line in 0usize..6) {
        prop_assert!(check(&text, &[]).is_err());
        let good = self::text();
        let mut lines: Vec<&str> = good.lines().collect();
        // An empty line at the end is the end of the last line, which is no change.
        prop_assume!(!text.is_empty() || line < lines.len());
        lines.insert(line.min(lines.len()), &text);
        prop_assert!(check(&lines.join("\n"), &[]).is_err());
    }
}
