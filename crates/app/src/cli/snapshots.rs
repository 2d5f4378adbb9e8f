//! `retoma snapshots`.

use super::target;
use crate::context::{self, AsOfArgs, Context};
use crate::exit::Exit;
use crate::output::{self, table};
use retoma_core::Result;
use retoma_repo::SnapshotId;
use retoma_repo::format::snapshot::{Snapshot, TAG_HOLD, TAG_MANIFEST, TAG_MASS_CHANGE};
use serde_json::json;
use std::collections::BTreeSet;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only of these components
    component: Vec<String>,
    /// Also the snapshots of the manifest
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    as_of: AsOfArgs,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = context.open_as_of(&loaded.manifest, &args.as_of)?;
    let (mut snapshots, damaged) = repository.readable_snapshots()?;
    for error in &damaged {
        context.printer.explain_warning(error);
    }
    // One that left the manifest still has snapshots; one that neither knows is a typing error.
    for name in &args.component {
        if !snapshots.iter().any(|(_, snapshot)| snapshot.component() == Some(name)) {
            context::component(&loaded.manifest, name)?;
        }
    }
    snapshots.retain(|(_, snapshot)| {
        let wanted = args.component.iter().any(|name| snapshot.component() == Some(name));
        (args.component.is_empty() || wanted) && (args.all || !snapshot.has_tag(TAG_MANIFEST))
    });
    let rows: Vec<Vec<String>> = snapshots.iter().map(|(id, snapshot)| row(*id, snapshot)).collect();
    context.printer.data(&table::table(&["id", "time", "host", "component", "state", "paths"], &rows));
    let list: Vec<_> = snapshots.iter().map(|(id, snapshot)| object(*id, snapshot)).collect();
    let servers = snapshots.iter().filter(|(_, snapshot)| snapshot.kind() == Some("postgres"));
    let servers: BTreeSet<&str> = servers.filter_map(|(_, snapshot)| snapshot.component()).collect();
    let mut windows = Vec::new();
    for component in servers {
        windows.append(&mut target::windows(context, &repository, component));
    }
    context.printer.json(
        "retoma.snapshots/1",
        json!({ "snapshots": list, "windows": windows,
        "damaged": damaged.iter().map(output::error_object).collect::<Vec<_>>() }),
    );
    Ok(if damaged.is_empty() { Exit::Ok } else { Exit::Incomplete })
}

fn state(snapshot: &Snapshot) -> &'static str {
    match (snapshot.is_incomplete(), snapshot.has_tag(TAG_MASS_CHANGE), snapshot.has_tag(TAG_HOLD)) {
        (true, false, _) => "incomplete",
        (true, true, _) => "incomplete, mass change",
        (false, true, _) => "mass change",
        (false, false, true) => "held",
        (false, false, false) => "complete",
    }
}

fn row(id: SnapshotId, snapshot: &Snapshot) -> Vec<String> {
    let local = snapshot.time.zoned(jiff::tz::TimeZone::system());
    vec![
        id.short(),
        local.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        table::printable(&snapshot.hostname),
        table::printable(snapshot.component().unwrap_or("-")),
        state(snapshot).to_owned(),
        table::printable(&snapshot.paths.join(" ")),
    ]
}

fn object(id: SnapshotId, snapshot: &Snapshot) -> serde_json::Value {
    json!({
        "id": id.to_hex(), "time": snapshot.time.0.to_string(), "hostname": snapshot.hostname,
        "component": snapshot.component(), "kind": snapshot.kind(), "paths": snapshot.paths,
        "tags": snapshot.tags, "complete": !snapshot.is_incomplete(), "manifest_hash": snapshot.manifest_hash(),
        "tree": snapshot.tree.to_hex(), "parent": snapshot.parent.map(SnapshotId::to_hex),
    })
}
