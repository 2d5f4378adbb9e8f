//! `retoma backup`.

use super::record;
use crate::context::{self, Context, Loaded};
use crate::exit::Exit;
use crate::output::progress::Display;
use crate::output::{self, table};
use retoma_control::backup::{self, ComponentBackup, RecoverySet};
use retoma_control::open::Opened;
use retoma_core::manifest::{self, Component, Manifest};
use retoma_core::units::{ByteSize, counted, span};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::MassChange;
use retoma_repo::evidence::{Outcome, SubjectComponent, What};
use retoma_repo::ops::prune::LostPack;
use retoma_repo::{PackId, Repository, SnapshotId};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Components to back up (default: all)
    component: Vec<String>,
    /// Fail when this repository is not there, instead of making it: its disk may not be mounted
    #[arg(long, value_name = "NAME")]
    existing: Vec<String>,
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
        Some(_) => vec![direct(context.chosen(manifest)?)?],
        None => manifest.repositories.iter().filter(|it| it.copy_of.is_none()).collect(),
    };
    let mut all = Results::default();
    let alone = repositories.len() == 1;
    for configured in repositories {
        let wanted = |component: &&&Component| component.repositories.contains(&configured.name);
        let components: Vec<&Component> = components.iter().filter(wanted).copied().collect();
        let may_create = !args.existing.contains(&configured.name);
        match open(&loaded, configured, may_create, context) {
            Ok(repository) => {
                let here = one(context, manifest, &configured.name, &repository, &components)?;
                if let Some(set) = here.set().filter(|set| set.points.len() > 1) {
                    context.printer.data(&set.in_words());
                }
                keep_record(context, manifest, &repository, &here);
                all.done.extend(here.done);
                all.failed.extend(here.failed);
                all.sets.extend(here.sets);
            }
            Err(error) if alone || error.kind() == ErrorKind::Cancelled => return Err(error),
            // One repository that can't be opened must not keep the others from being used.
            Err(error) => {
                context.printer.explain(&error);
                let failed =
                    components.iter().map(|component| Failed::new(&configured.name, component, &error));
                all.failed.extend(failed);
            }
        }
    }
    if all.done.is_empty() && all.failed.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, "no component goes to this repository")
            .with_hint("name another with `--repository`, or a component that goes there"));
    }
    let value = json!({ "backups": all.backups(), "failed": all.failures(), "recovery_sets": all.sets });
    context.printer.json("retoma.backup/1", value);
    Ok(all.exit())
}

/// A repository that backups are written into.
fn direct(chosen: &manifest::Repository) -> Result<&manifest::Repository> {
    let Some(source) = &chosen.copy_of else { return Ok(chosen) };
    let message = format!("`{}` is a copy of `{source}`: no backup is written into it", chosen.name);
    Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
        .with_hint(format!("back up into `{source}`, and run `retoma copy --to {}`", chosen.name)))
}

fn open(
    loaded: &Loaded,
    configured: &manifest::Repository,
    may_create: bool,
    context: &Context,
) -> Result<Repository> {
    let Opened { repository, created } = retoma_control::open::open_cached(configured, may_create)?;
    if created {
        // Right for the first backup; a shock for whoever had one there.
        context.printer.warning(&format!("there was no repository at `{}`: made a new one", configured.url));
    }
    let progress = context.interrupt.progress();
    backup::backup_manifest(&loaded.manifest, &loaded.text, &repository, &progress)?;
    Ok(repository)
}

/// Backs components up into one repository; only a wish to stop ends it early.
fn one(
    context: &Context,
    manifest: &Manifest,
    name: &str,
    repository: &Repository,
    components: &[&Component],
) -> Result<Results> {
    let mut here = Results::default();
    let (mut said, mut damaged) = (BTreeSet::new(), BTreeSet::new());
    for component in components {
        let progress = context.interrupt.progress();
        let display = Display::start(context.printer, &component.name, &progress);
        let result = backup::backup(manifest, component, repository, &progress);
        drop(display);
        match result {
            Ok(backup) => {
                say(context, name, &backup);
                say_damaged(context, &backup.damaged_snapshots, &mut damaged);
                say_lost(context, &backup.summary.lost_packs, &mut said);
                here.done.push((name.to_owned(), backup));
            }
            // One component that can't be read must not keep the others from being backed up.
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                context.printer.explain(&error);
                here.failed.push(Failed::new(name, component, &error));
            }
        }
    }
    here.sets.extend(here.set().map(|set| {
        json!({ "repository": name, "common_point": set.common_point.to_string(),
                "earliest": set.earliest.to_string(), "skew_seconds": set.skew_seconds, "points": set.points })
    }));
    Ok(here)
}

fn keep_record(context: &Context, manifest: &Manifest, repository: &Repository, here: &Results) {
    let done = here.done.iter().map(|(_, backup)| SubjectComponent {
        component: backup.component.clone(),
        kind: backup.kind.as_str().to_owned(),
        snapshot: Some(backup.summary.snapshot),
        data_bytes: backup.summary.total_bytes,
    });
    let failed = here.failed.iter().map(|failed| SubjectComponent {
        component: failed.component.clone(),
        kind: failed.kind.to_owned(),
        snapshot: None,
        data_bytes: 0,
    });
    let components: Vec<_> = done.chain(failed).collect();
    if components.is_empty() {
        return;
    }
    let outcome = match here.exit() {
        Exit::Ok => Outcome::Passed,
        Exit::Incomplete => Outcome::Incomplete,
        _ => Outcome::Failed,
    };
    let details = json!({ "backups": here.backups(), "failed": here.failures(), "recovery_sets": here.sets });
    record::keep(context, manifest, repository, What::Backup, outcome, components, details);
}

/// What became of the components, with the repository's name.
#[derive(Default)]
struct Results {
    done: Vec<(String, ComponentBackup)>,
    failed: Vec<Failed>,
    /// What came into each repository together.
    sets: Vec<Value>,
}

impl Results {
    /// The moments of what came into one repository.
    fn set(&self) -> Option<RecoverySet> {
        RecoverySet::of(self.done.iter().map(|(_, backup)| backup.point()).collect())
    }

    /// All failed: the first error's exit code. Some failed, or something could not be read: 3.
    fn exit(&self) -> Exit {
        if let (true, Some(first)) = (self.done.is_empty(), self.failed.first()) {
            return first.exit;
        }
        let unread = self.done.iter().any(|(_, backup)| !backup.summary.unreadable.is_empty());
        if unread || !self.failed.is_empty() { Exit::Incomplete } else { Exit::Ok }
    }

    fn backups(&self) -> Vec<Value> {
        self.done.iter().map(|(repository, backup)| object(repository, backup)).collect()
    }

    fn failures(&self) -> Vec<Value> {
        let failure = |failed: &Failed| {
            json!({ "component": failed.component, "kind": failed.kind, "repository": failed.repository,
                    "code": failed.error["code"], "message": failed.error["message"], "hint": failed.error["hint"] })
        };
        self.failed.iter().map(failure).collect()
    }
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

fn say(context: &Context, repository: &str, backup: &ComponentBackup) {
    let summary = &backup.summary;
    context.printer.data(&format!(
        "{}: snapshot {} in `{repository}`: {}, {} ({} read, {} stored) in {}",
        backup.component,
        summary.snapshot.short(),
        counted(summary.files_read + summary.files_unchanged, "file", "files"),
        ByteSize(summary.total_bytes),
        ByteSize(summary.read_bytes),
        ByteSize(summary.stored_bytes),
        span(backup.elapsed),
    ));
    if let Some(why) = &backup.not_compared {
        context.printer.warning(&format!(
            "{}: not compared with the last good backup [{}]: {why}",
            backup.component,
            why.code()
        ));
    }
    for doubt in &backup.warnings {
        context.printer.warning(&format!("{}: {doubt}; {}", backup.component, doubt.fix()));
    }
    for sentence in &backup.left_out {
        context.printer.warning(&format!("{}: {sentence}", backup.component));
    }
    for unreadable in &summary.unreadable {
        context.printer.warning(&format!("not backed up: {}", unreadable.error));
    }
    say_mass_change(context, repository, backup);
    if !summary.unreadable.is_empty() {
        context.printer.warning(&format!(
            "snapshot {} is incomplete: {} could not be read; it does not count as the last good one",
            summary.snapshot.short(),
            counted(summary.unreadable.len(), "path", "paths")
        ));
    }
}

/// What looks like somebody's who encrypts or deletes everything, and what to do.
fn say_mass_change(context: &Context, repository: &str, backup: &ComponentBackup) {
    let Some(mass_change) = &backup.summary.mass_change else { return };
    let (component, snapshot) = (&backup.component, backup.summary.snapshot.short());
    for finding in &mass_change.findings {
        context.printer.warning(&format!("{component}: much changed since the last backup: {finding}"));
    }
    let parent = backup.parent.map_or_else(String::new, |parent| format!("{} ", parent.short()));
    context.printer.warning(&format!(
        "{component}: snapshot {snapshot} and all older ones stay in `{repository}` until you accept the change: look at it with \
         `retoma diff -r {repository} {parent}{snapshot}`; if it was meant, `retoma forget -r {repository} --accept {snapshot}`; if not, \
         see docs/mass-change.md"
    ));
}

/// Every backup of a run meets the same damage; each is said once.
fn say_damaged(context: &Context, damaged: &[Error], said: &mut BTreeSet<String>) {
    for error in damaged {
        if said.insert(error.to_string()) {
            context.printer.explain_warning(error);
        }
    }
}

/// Every backup of a run meets the same packs; each is said once.
fn say_lost(context: &Context, lost: &[LostPack], said: &mut BTreeSet<PackId>) {
    let fresh: Vec<&LostPack> = lost.iter().filter(|pack| said.insert(pack.id)).collect();
    if fresh.is_empty() {
        return;
    }
    let packs: Vec<String> = fresh.iter().map(ToString::to_string).collect();
    let message = format!("the repository has lost data: {}", packs.join(", "));
    let error = Error::new(ErrorKind::Corrupt, codes::PACK_MISSING, message).with_hint(
        "what this backup needed of them was stored again; run `retoma verify` to see which older snapshots are hit",
    );
    context.printer.explain_warning(&error);
}

fn object(repository: &str, backup: &ComponentBackup) -> Value {
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
        "duration_seconds": backup.elapsed.as_secs_f64(), "consistent_at": backup.consistent_at.to_string(),
        "unreadable": unreadable.collect::<Vec<_>>(),
        "warnings": backup.warnings.iter().map(ToString::to_string).chain(backup.left_out.iter().cloned()).collect::<Vec<_>>(),
        "lost_packs": summary.lost_packs.iter().map(|pack| pack.id.to_hex()).collect::<Vec<_>>(),
        "damaged_snapshots": backup.damaged_snapshots.iter().map(output::error_object).collect::<Vec<_>>(),
        "not_compared": backup.not_compared.as_ref().map(output::error_object),
        "mass_change": summary.mass_change.as_ref().map(|found| mass_change(backup, found)),
    })
}

fn mass_change(backup: &ComponentBackup, found: &MassChange) -> Value {
    let findings = found.findings.iter().map(|finding| {
        let mut object = json!(finding);
        object["text"] = finding.to_string().into();
        object
    });
    json!({ "parent": backup.parent.map(SnapshotId::to_hex), "findings": findings.collect::<Vec<_>>(), "counts": found.counts })
}
