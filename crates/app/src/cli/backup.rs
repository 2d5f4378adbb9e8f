//! `retoma backup`.

use crate::context::{self, Context, Loaded};
use crate::exit::Exit;
use crate::output::progress::Display;
use crate::output::{self, table};
use retoma_control::backup::{self, ComponentBackup};
use retoma_core::manifest::{self, Component};
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use serde_json::{Value, json};

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
    let alone = repositories.len() == 1;
    for configured in repositories {
        let components =
            components.iter().filter(|component| component.repositories.contains(&configured.name));
        let repository = match open(context, &loaded, configured) {
            Ok(repository) => repository,
            Err(error) if alone || error.kind() == ErrorKind::Cancelled => return Err(error),
            // One repository that can't be opened must not keep the others from being used.
            Err(error) => {
                context.printer.explain(&error);
                failed.extend(components.map(|component| Failed::new(&configured.name, component, &error)));
                continue;
            }
        };
        for component in components {
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
                    context.printer.explain(&error);
                    failed.push(Failed::new(&configured.name, component, &error));
                }
            }
        }
    }
    if done.is_empty() && failed.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, "no component goes to this repository")
            .with_hint("name another with `--repository`, or a component that goes there"));
    }
    report(context, &done, &failed);
    Ok(exit(&done, &failed))
}

/// A component without a snapshot.
struct Failed {
    component: String,
    repository: String,
    kind: &'static str,
    exit: Exit,
    error: Value,
}

impl Failed {
    fn new(repository: &str, component: &Component, error: &Error) -> Self {
        Self {
            component: component.name.clone(),
            repository: repository.to_owned(),
            kind: component.kind().as_str(),
            exit: Exit::of(error),
            error: output::error_object(error),
        }
    }
}

fn open(context: &Context, loaded: &Loaded, configured: &manifest::Repository) -> Result<Repository> {
    let repository = retoma_control::open::open_repository(configured, true)?.repository;
    let progress = context.interrupt.progress();
    backup::backup_manifest(&loaded.manifest, &loaded.text, &repository, &progress)?;
    Ok(repository)
}

/// All failed: the first error's exit code. Some failed, or something could not be read: 3.
fn exit(done: &[(String, ComponentBackup)], failed: &[Failed]) -> Exit {
    if let (true, Some(first)) = (done.is_empty(), failed.first()) {
        return first.exit;
    }
    let incomplete =
        !failed.is_empty() || done.iter().any(|(_, backup)| !backup.summary.unreadable.is_empty());
    if incomplete { Exit::Incomplete } else { Exit::Ok }
}

fn say(context: &Context, repository: &str, backup: &ComponentBackup) {
    let summary = &backup.summary;
    context.printer.data(&format!(
        "{}: snapshot {} in `{repository}`: {}, {} ({} read, {} stored) in {:.1} s",
        backup.component,
        summary.snapshot.short(),
        counted(summary.files_read + summary.files_unchanged, "file", "files"),
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
            "snapshot {} is incomplete: {} could not be read; it does not count as the last good one",
            summary.snapshot.short(),
            counted(summary.unreadable.len(), "path", "paths")
        ));
    }
}

fn report(context: &Context, done: &[(String, ComponentBackup)], failed: &[Failed]) {
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
    let failed = failed.iter().map(|failed| {
        json!({ "component": failed.component, "kind": failed.kind, "repository": failed.repository,
                "code": failed.error["code"], "message": failed.error["message"], "hint": failed.error["hint"] })
    });
    let value = json!({ "backups": done.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>() });
    context.printer.json("retoma.backup/1", value);
}
