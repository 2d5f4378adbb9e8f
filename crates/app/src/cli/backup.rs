//! `retoma backup`.

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::progress::Display;
use crate::output::table;
use retoma_control::backup::{self, ComponentBackup};
use retoma_core::units::ByteSize;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Components to back up (default: all)
    component: Vec<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let manifest = &loaded.manifest;
    let components = if args.component.is_empty() {
        manifest.components.iter().collect()
    } else {
        args.component.iter().map(|name| context::component(manifest, name)).collect::<Result<Vec<_>>>()?
    };
    let repositories = match &context.repository {
        Some(_) => vec![context.chosen(manifest)?],
        None => manifest.repositories.iter().collect(),
    };
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for configured in repositories {
        let repository = retoma_control::open::open_repository(configured, true)?.repository;
        backup::backup_manifest(manifest, &loaded.text, &repository, &context.interrupt.progress())?;
        for component in &components {
            if !component.repositories.contains(&configured.name) {
                continue;
            }
            let progress = context.interrupt.progress();
            let display = Display::start(context.printer, &component.name, &progress);
            let result = backup::backup(manifest, component, &repository, &progress);
            drop(display);
            match result {
                Ok(backup) => {
                    say(context, &configured.name, &backup);
                    done.push((configured.name.clone(), backup));
                }
                // One component that can't be read must not keep the others from being backed up.
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    context.printer.error(&error);
                    failed.push((configured.name.clone(), component.name.clone(), error));
                }
            }
        }
    }
    report(context, &done, &failed);
    finish(&done, failed)
}

/// All failed: the first error's exit code. Some failed, or something could not be read: 3.
fn finish(done: &[(String, ComponentBackup)], failed: Vec<(String, String, Error)>) -> Result<Exit> {
    if done.is_empty() {
        return match failed.into_iter().next() {
            Some((_, _, error)) => Ok(Exit::of(&error)),
            None => Err(Error::new(ErrorKind::Invalid, codes::USAGE, "no component goes to this repository")),
        };
    }
    let incomplete =
        !failed.is_empty() || done.iter().any(|(_, backup)| !backup.summary.unreadable.is_empty());
    Ok(if incomplete { Exit::Incomplete } else { Exit::Ok })
}

fn say(context: &Context, repository: &str, backup: &ComponentBackup) {
    let summary = &backup.summary;
    context.printer.data(&format!(
        "{}: snapshot {} in `{repository}`: {} files, {} ({} read, {} stored) in {:.1} s",
        backup.component,
        summary.snapshot.short(),
        summary.files_read + summary.files_unchanged,
        ByteSize(summary.total_bytes),
        ByteSize(summary.read_bytes),
        ByteSize(summary.stored_bytes),
        backup.elapsed.as_secs_f64(),
    ));
    for unreadable in &summary.unreadable {
        context.printer.warning(&format!("not backed up: {}", unreadable.error));
    }
    if !summary.unreadable.is_empty() {
        context.printer.warning(&format!(
            "snapshot {} is incomplete: {} paths could not be read; it does not count as the last good one",
            summary.snapshot.short(),
            summary.unreadable.len()
        ));
    }
}

fn report(context: &Context, done: &[(String, ComponentBackup)], failed: &[(String, String, Error)]) {
    let done = done.iter().map(|(repository, backup)| {
        let summary = &backup.summary;
        let unreadable = summary.unreadable.iter().map(|unreadable| {
            json!({ "path": table::path(&unreadable.path), "code": unreadable.error.code().as_str(),
                    "message": unreadable.error.to_string() })
        });
        json!({
            "component": backup.component, "kind": backup.kind.as_str(), "repository": repository,
            "snapshot": summary.snapshot.to_hex(), "complete": summary.unreadable.is_empty(),
            "files_read": summary.files_read, "files_unchanged": summary.files_unchanged,
            "directories": summary.directories, "total_bytes": summary.total_bytes,
            "read_bytes": summary.read_bytes, "stored_bytes": summary.stored_bytes,
            "duration_seconds": backup.elapsed.as_secs_f64(),
            "unreadable": unreadable.collect::<Vec<_>>(),
        })
    });
    let failed = failed.iter().map(|(repository, component, error)| {
        json!({ "component": component, "repository": repository, "code": error.code().as_str(),
                "message": error.to_string() })
    });
    let value = json!({ "backups": done.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>() });
    context.printer.json("retoma.backup/1", value);
}
