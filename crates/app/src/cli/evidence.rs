//! `retoma evidence`.

use super::record;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use clap::Subcommand;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::evidence::{self, Anchor, PublicKey, Record, SigningKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the records and check their chains (the default)
    List,
    /// Print one writer's records in the clear, to be verified without the repository
    Export {
        /// The writer (default: the manifest's)
        #[arg(long)]
        writer: Option<String>,
    },
    /// Verify an export with the pinned public key alone: no repository, no manifest
    Verify {
        /// The exported file
        file: PathBuf,
        /// The public key, as base64 (default: the manifest's)
        #[arg(long, value_name = "BASE64")]
        public_key: Option<String>,
        /// A record that must be there, as SEQUENCE:HASH: without one, a cut tail can't be seen
        #[arg(long, value_name = "ANCHOR")]
        anchor: Vec<String>,
    },
    /// Make a signing key and print its public key
    NewKey {
        /// The file to write, with mode 0600
        file: PathBuf,
    },
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    match args.action.as_ref().unwrap_or(&Action::List) {
        Action::List => list(context),
        Action::Export { writer } => export(context, writer.as_deref()),
        Action::Verify { file, public_key, anchor } => verify(context, file, public_key.as_deref(), anchor),
        Action::NewKey { file } => new_key(context, file),
    }
}

fn new_key(context: &Context, file: &std::path::Path) -> Result<Exit> {
    let key = SigningKey::generate()?;
    key.save_new(file)?;
    let public = key.public_key().to_string();
    context.printer.data(&public);
    context
        .printer
        .note("write this as `public_key` under `[evidence]` of the manifest, and where you keep reports");
    context.printer.json("retoma.evidence/1", json!({ "public_key": public, "file": file }));
    Ok(Exit::Ok)
}

fn pins(context: &Context) -> Result<(retoma_core::manifest::Manifest, BTreeMap<String, PublicKey>)> {
    let manifest = context.manifest()?.manifest;
    let pinned = record::pinned(&manifest)?;
    let pins = pinned.map(|key| (manifest.evidence.writer.clone(), key)).into_iter().collect();
    Ok((manifest, pins))
}

fn list(context: &Context) -> Result<Exit> {
    let (manifest, pins) = pins(context)?;
    let repository = context.open(&manifest)?;
    let listings = evidence::list(&repository, &pins)?;
    let (mut rows, mut records, mut damages) = (Vec::new(), Vec::new(), Vec::new());
    for listing in &listings {
        for record in listing.records() {
            rows.push(row(record));
            records.push(object(record));
        }
        for damage in listing.damages() {
            let code = damage.error.code();
            context.printer.warning(&format!("record {} [{code}]: {}", damage.name, damage.error));
            damages.push(json!({ "name": damage.name, "code": damage.error.code().as_str(), "message": damage.error.to_string() }));
        }
        if !listing.pinned {
            context.printer.note(&format!("note: no public key is pinned for writer `{}`", listing.writer));
        }
    }
    context.printer.data(&table::table(&["writer", ">number", "time", "what", "outcome", "hash"], &rows));
    let damaged = !damages.is_empty();
    if damaged {
        context
            .printer
            .note("put it back from a second repository or an export, or go on under another `writer`");
    }
    context.printer.json("retoma.evidence/1", json!({ "records": records, "damaged": damages }));
    Ok(if damaged { Exit::Missed } else { Exit::Ok })
}

fn word(value: &impl serde::Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

fn row(record: &Record) -> Vec<String> {
    let payload = record.payload();
    vec![
        table::printable(&payload.writer),
        record.sequence().to_string(),
        payload.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        table::printable(&word(&payload.what)),
        table::printable(&word(&payload.outcome)),
        record.hash().to_string().chars().take(8).collect(),
    ]
}

fn object(record: &Record) -> Value {
    let payload = record.payload();
    json!({ "writer": payload.writer, "sequence": record.sequence(), "time": payload.time, "what": payload.what,
            "outcome": payload.outcome, "anchor": record.anchor().to_string(), "subject": payload.subject })
}

fn export(context: &Context, writer: Option<&str>) -> Result<Exit> {
    let (manifest, pins) = pins(context)?;
    let repository = context.open(&manifest)?;
    let writer = writer.unwrap_or(&manifest.evidence.writer);
    let listings = evidence::list(&repository, &pins)?;
    let listing = listings.iter().find(|listing| listing.writer == writer).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, codes::OBJECT_NOT_FOUND, format!("writer `{writer}` has no records"))
            .with_hint("`retoma evidence list` shows who has; a backup under a manifest with a `signing_key` leaves one")
    })?;
    if let Some(damage) = listing.damages().next() {
        let message = format!("record {} is damaged: {}", damage.name, damage.error);
        return Err(Error::new(ErrorKind::Corrupt, damage.error.code(), message)
            .with_hint("`retoma evidence list` shows what is left"));
    }
    context.printer.raw(evidence::export(listing.records())?.as_bytes());
    Ok(Exit::Ok)
}

fn verify(context: &Context, file: &std::path::Path, key: Option<&str>, anchors: &[String]) -> Result<Exit> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::io(file.display(), error))?;
    let key = match key {
        Some(key) => PublicKey::parse(key)?,
        None => record::required(&context.manifest()?.manifest)?,
    };
    let anchors = anchors.iter().map(|anchor| anchor.parse()).collect::<Result<Vec<Anchor>>>()?;
    let report = evidence::verify_export(&text, &key, &anchors)?;
    context.printer.data(&format!(
        "valid: {} of writer {}, the newest is {}",
        counted(report.records, "record", "records"),
        table::printable(&report.writer),
        report.head
    ));
    for limit in &report.not_proven {
        context.printer.note(&format!("not proven: {limit}"));
    }
    context.printer.json("retoma.evidence/1", json!({ "valid": true, "report": report }));
    Ok(Exit::Ok)
}
