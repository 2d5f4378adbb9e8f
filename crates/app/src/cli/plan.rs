//! `retoma plan`: what a person does on the worst day, printed before it comes.

use super::drill::language;
use super::status;
use crate::context::Context;
use crate::exit::Exit;
use retoma_control::durable;
use retoma_core::drill::Seconds;
use retoma_core::manifest::Manifest;
use retoma_core::render::{Language, policies, sheet};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::evidence::{Outcome, Payload, What};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["sheet", "policies"])))]
pub(super) struct Args {
    /// The recovery sheet: a page to print that brings the service back with an address and a password
    #[arg(long)]
    sheet: bool,
    /// Who may do what in the buckets: for S3 a policy for each, for Google and Azure the commands that set it, and for all the rule
    /// that frees what was deleted. Nothing is asked or changed there
    #[arg(long)]
    policies: bool,
    /// The language of the page
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    language: Language,
    /// Where to write it: a file (default: recovery-sheet.html), for policies a folder (default: policies)
    #[arg(long, short = 'o', value_name = "PATH")]
    output: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    if args.policies {
        return policies(context, args.output.as_deref().unwrap_or(Path::new("policies")));
    }
    let output = args.output.as_deref().unwrap_or(Path::new("recovery-sheet.html"));
    let manifest = context.manifest()?.manifest;
    let repository = context.open(&manifest)?;
    let facts = facts(&manifest, &repository)?;
    let page = sheet::page(&first(&manifest, context.repository.as_deref()), &facts, args.language);
    durable::write(output, page.as_bytes(), durable::SHARED)?;
    let never: Vec<&str> =
        facts.components.iter().filter(|it| it.snapshot.is_none()).map(|it| it.component.as_str()).collect();
    for component in &never {
        context.printer.warning(&format!("{component} was never backed up: the sheet cannot bring it back"));
    }
    context
        .printer
        .data(&format!("wrote {}: print it, and keep it where the machines are not", output.display()));
    let value = json!({ "sheet": output, "language": args.language.tag(), "manifest_hash": manifest.hash(),
                        "never_backed_up": never });
    context.printer.json("retoma.plan/1", value);
    Ok(if never.is_empty() { Exit::Ok } else { Exit::Missed })
}

/// Writes a policy for each bucket of the manifest, or of the chosen repository.
fn policies(context: &Context, folder: &Path) -> Result<Exit> {
    let manifest = context.manifest()?.manifest;
    let chosen = context.repository.is_some().then(|| context.chosen(&manifest)).transpose()?;
    let files = match chosen {
        Some(repository) => policies::files(std::iter::once(repository)),
        None => policies::files(manifest.repositories.iter()),
    };
    let left_out: Vec<&str> = policies::without(&manifest)
        .filter(|repository| chosen.is_none_or(|chosen| chosen.name == repository.name))
        .map(|repository| repository.name.as_str())
        .collect();
    if files.is_empty() {
        let message = format!("policies are made for buckets; in none: {}", left_out.join(", "));
        return Err(Error::new(ErrorKind::Unsupported, codes::USAGE, message)
            .with_hint("docs/stores.md and docs/immutability.md say what rights other stores know"));
    }
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), error))?;
    let mut written = Vec::new();
    for file in &files {
        let path = folder.join(&file.name);
        durable::write(&path, file.text.as_bytes(), durable::SHARED)?;
        context.printer.data(&format!("wrote {}", path.display()));
        written.push(path);
    }
    context.printer.note(
        "replace what is written in capitals, such as ACCOUNT, or the names by those of your users or roles",
    );
    if files.iter().any(|file| !file.name.starts_with("s3-")) {
        context
            .printer
            .warning("what is written for Google and Azure was never run against them: read it first");
    }
    for name in &left_out {
        context.printer.warning(&format!("repository `{name}` lies in no bucket: no policy is made for it"));
    }
    context.printer.json("retoma.plan/1", json!({ "policies": written, "left_out": left_out }));
    Ok(Exit::Ok)
}

/// The manifest with the chosen repository in front.
fn first(manifest: &Manifest, chosen: Option<&str>) -> Manifest {
    let mut manifest = manifest.clone();
    manifest.repositories.sort_by_key(|repository| chosen.is_some_and(|name| repository.name != name));
    manifest
}

/// What snapshots and records say of each component.
fn facts(manifest: &Manifest, repository: &Repository) -> Result<sheet::Facts> {
    let (records, unread) = status::records(manifest, repository)?;
    if let Some(error) = unread {
        return Err(error);
    }
    let mut facts = sheet::Facts { version: env!("CARGO_PKG_VERSION").to_owned(), components: Vec::new() };
    for component in &manifest.components {
        let name = component.name.as_str();
        let newest = status::newest(repository, name)?;
        facts.components.push(sheet::ComponentFacts {
            component: name.to_owned(),
            snapshot: newest.map(|(_, snapshot)| snapshot.time.0),
            data_bytes: records.iter().find_map(|record| data_bytes(record.payload(), name)),
            measured: records.iter().find_map(|record| measured(record.payload(), name)),
        });
    }
    Ok(facts)
}

/// What a record of a backup says about the size of a component.
fn data_bytes(payload: &Payload, component: &str) -> Option<u64> {
    let of_it = payload.subject.components.iter().find(|it| it.component == component);
    of_it.filter(|it| payload.what == What::Backup && it.snapshot.is_some()).map(|it| it.data_bytes)
}

/// What a record of a green drill says about the return of a component.
fn measured(payload: &Payload, component: &str) -> Option<sheet::Measured> {
    if payload.what != What::Drill || payload.outcome != Outcome::Passed {
        return None;
    }
    let components = payload.details["components"].as_array()?;
    let of_it = components.iter().find(|it| it["component"] == component)?;
    let rto = Duration::try_from_secs_f64(of_it["rto_measured_seconds"].as_f64()?).ok()?;
    Some(sheet::Measured { time: payload.time, rto: Seconds::from_duration(rto) })
}
