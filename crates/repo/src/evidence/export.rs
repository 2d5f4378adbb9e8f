//! A chain as one text file, and its verification with the public key alone.
//!
//! JSON Lines: a first line that says what follows, then one envelope a line, oldest first. The first line is not
//! signed, so nothing in it is believed: each of its fields must agree with the records.

use super::anchor::Anchor;
use super::controls::{Coverage, coverage};
use super::envelope::{Envelope, OTHER_KEY};
use super::key::PublicKey;
use super::links::Links;
use super::list::check_anchor;
use super::malformed;
use super::record::{Record, RecordHash, unknown_schema};
use crate::id::RepositoryId;
use jiff::Timestamp;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use serde::{Deserialize, Serialize};

/// The value of the field `schema` in the first line of an export.
pub const EXPORT_SCHEMA: &str = "retoma.evidence-export/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    schema: String,
    repository_id: RepositoryId,
    writer: String,
    public_key: PublicKey,
    first: u64,
    records: u64,
    head: RecordHash,
}

/// What [`verify_export`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The repository that the records are about.
    pub repository_id: RepositoryId,
    /// Whose chain it is.
    pub writer: String,
    /// How many records there are, all signed with the pinned key.
    pub records: u64,
    /// The sequence of the oldest.
    pub first: u64,
    /// The time in the oldest.
    pub from: Timestamp,
    /// The time in the newest.
    pub to: Timestamp,
    /// The newest record. Keep it elsewhere: it shows later that nothing up to it was cut off.
    pub head: Anchor,
    /// Records whose time is before the time of the one before them.
    pub clock_went_back: Vec<u64>,
    /// Which controls the records bear on.
    pub controls: Vec<Coverage>,
    /// What the file leaves open, in sentences.
    pub not_proven: Vec<String>,
}

/// Writes records of one chain, oldest first, as a text that [`verify_export`] accepts.
///
/// # Errors
/// `Invalid` with `R0808` when there is none; `Corrupt` with `R0803` to `R0806` when they are no chain.
pub fn export<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<String> {
    let records: Vec<&Record> = records.into_iter().collect();
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Err(Error::new(
            ErrorKind::Invalid,
            codes::EVIDENCE_INCOMPLETE,
            "there are no records to export",
        ));
    };
    let payload = first.payload();
    let mut links = Links::new(payload.repository_id, &payload.writer, payload.sequence);
    let header = Header {
        schema: EXPORT_SCHEMA.to_owned(),
        repository_id: payload.repository_id,
        writer: payload.writer.clone(),
        public_key: payload.public_key,
        first: payload.sequence,
        records: records.len() as u64,
        head: last.hash(),
    };
    let mut text = write_header(&header)?;
    for record in records {
        links.follow(record).with_context(|| format!("export record {}", record.sequence()))?;
        text.push('\n');
        text.push_str(record.envelope());
    }
    text.push('\n');
    Ok(text)
}

/// Checks an export offline: each record is signed with `pinned`, they follow each other without a gap, each holds the
/// hash of the one before, all are of one repository and writer, and the records that `anchors` name are among them.
///
/// A cut tail can be seen only with an anchor; the report says what is left open. The text is hostile: any text gives
/// a report or an error.
///
/// # Errors
/// `Corrupt` with `R0801` (malformed), `R0802` (signature), `R0803` (another key), `R0804` (gap, order, twice), `R0805`
/// (broken link), `R0806` (another repository or writer), `R0807` (anchor), `R0808` (the first line says otherwise);
/// `Unsupported` with `R0809`. The error names line and place.
pub fn verify_export(text: &str, pinned: &PublicKey, anchors: &[Anchor]) -> Result<VerifyReport> {
    verify_text(text, pinned, anchors).map_err(|error| match error.code() {
        codes::EVIDENCE_MALFORMED => error.with_hint(
            "this is not what an export wrote: write it anew with `retoma evidence export > FILE`, and verify that",
        ),
        _ => error,
    })
}

fn verify_text(text: &str, pinned: &PublicKey, anchors: &[Anchor]) -> Result<VerifyReport> {
    let mut lines = text.lines();
    let header = read_header(lines.next().unwrap_or_default(), pinned).context("verify line 1")?;
    let mut links = Links::new(header.repository_id, &header.writer, header.first);
    let mut records = Vec::new();
    for (line, number) in lines.zip(2_u64..) {
        let doing = || match links_position(header.first, number) {
            Some(sequence) => format!("verify line {number}, record {sequence}"),
            None => format!("verify line {number}"),
        };
        let record =
            Envelope::open(line, Some(pinned)).and_then(Record::from_envelope).with_context(doing)?;
        links.follow(&record).with_context(doing)?;
        records.push(record);
    }
    let (Some(first), Some(head)) = (records.first(), records.last()) else {
        return Err(incomplete("there are no records"));
    };
    if records.len() as u64 != header.records {
        return Err(incomplete(format!(
            "line 1 announces {}, and there are {}",
            counted(header.records, "record", "records"),
            records.len()
        )));
    }
    if head.hash() != header.head {
        return Err(incomplete(format!(
            "line 1 announces the head `{}`, and it is `{}`",
            header.head,
            head.hash()
        )));
    }
    for anchor in anchors {
        check_export_anchor(anchor, &records, first, head)?;
    }
    let goes_back = |pair: &[Record]| {
        let [before, after] = pair else { return None };
        (after.payload().time < before.payload().time).then(|| after.sequence())
    };
    Ok(VerifyReport {
        repository_id: header.repository_id,
        writer: header.writer,
        records: header.records,
        first: header.first,
        from: first.payload().time,
        to: head.payload().time,
        head: head.anchor(),
        clock_went_back: records.windows(2).filter_map(goes_back).collect(),
        controls: coverage(&records),
        not_proven: not_proven(first, head, anchors),
    })
}

fn links_position(first: u64, line: u64) -> Option<u64> {
    first.checked_add(line.checked_sub(2)?)
}

fn write_header(header: &Header) -> Result<String> {
    serde_json::to_string(header).map_err(|error| Error::internal(format!("export: {error}")))
}

fn read_header(line: &str, pinned: &PublicKey) -> Result<Header> {
    #[derive(Deserialize)]
    struct Schema {
        schema: String,
    }
    let bad = |error: serde_json::Error| malformed(format!("no export of evidence: {error}"));
    let Schema { schema } = serde_json::from_str(line).map_err(bad)?;
    if schema != EXPORT_SCHEMA {
        return Err(unknown_schema(&schema));
    }
    let header: Header = serde_json::from_str(line).map_err(bad)?;
    if header.public_key != *pinned {
        let message = format!(
            "the records are said to be signed with `{}`, and `{pinned}` is pinned",
            header.public_key
        );
        return Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_SIGNER, message).with_hint(OTHER_KEY));
    }
    if write_header(&header)? != line {
        return Err(malformed("the first line is not written in its one form"));
    }
    Ok(header)
}

/// An anchor of the record right before the first is checked against the first one's link.
fn check_export_anchor(anchor: &Anchor, records: &[Record], first: &Record, head: &Record) -> Result<()> {
    if anchor.sequence.checked_add(1) == Some(first.sequence())
        && first.payload().previous == Some(anchor.hash)
    {
        return Ok(());
    }
    let position = anchor.sequence.checked_sub(first.sequence()).and_then(|at| usize::try_from(at).ok());
    check_anchor(anchor, position.and_then(|at| records.get(at)), Some(head))
}

fn not_proven(first: &Record, head: &Record, anchors: &[Anchor]) -> Vec<String> {
    let mut open = Vec::new();
    if first.sequence() > 1 {
        open.push(format!("what records 1 to {} say: they are not in this file", first.sequence() - 1));
    }
    let anchored = anchors.iter().map(|anchor| anchor.sequence).max();
    match anchored {
        None => open.push(format!(
            "that record {} was the last one: without an anchor kept elsewhere, a cut tail cannot be seen",
            head.sequence()
        )),
        Some(anchored) => open.push(format!(
            "that record {} was the last one: the newest anchor names record {anchored}",
            head.sequence()
        )),
    }
    open.push("that the signer's clock was right, and that what it measured is true".to_owned());
    open.push("that nobody else had the signing key".to_owned());
    open
}

fn incomplete(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, codes::EVIDENCE_INCOMPLETE, message)
        .with_hint("take the whole file as `retoma evidence export` wrote it")
}
