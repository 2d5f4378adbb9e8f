//! `retoma diff`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use retoma_core::Result;
use retoma_core::units::{ByteSize, counted};
use retoma_repo::ops::diff::{self, ChangeKind};
use retoma_repo::ops::find::{self, Selector, Which};
use serde_json::json;

/// What stands before each path.
const LEGEND: &str =
    "+ added, - removed, M contents changed, U only mode, owner or times changed, T another type";

#[derive(Debug, clap::Args)]
#[command(after_help = LEGEND)]
pub(super) struct Args {
    /// The older snapshot, by the beginning of its id
    before: String,
    /// The newer snapshot
    after: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = context.open_cached(&loaded.manifest)?;
    let find = |id: &str| {
        find::snapshot(&repository, &Selector { which: Which::Id(id.to_owned()), ..Selector::default() })
    };
    let ((before_id, before), (after_id, after)) = (find(&args.before)?, find(&args.after)?);
    let index = context.readable_index(&repository)?;
    let (mut changes, mut added, mut removed, mut count) = (Vec::new(), 0, 0, 0u64);
    for change in diff::diff(&repository, &index, before.tree, after.tree) {
        let change = change?;
        let path = table::path(&change.path);
        (added, removed, count) = (added + change.added_bytes, removed + change.removed_bytes, count + 1);
        if context.printer.json {
            changes.push(
                json!({ "path": path, "change": name(change.kind).1, "added_bytes": change.added_bytes,
                                 "removed_bytes": change.removed_bytes }),
            );
        } else {
            context.printer.data(&format!("{} {path}", name(change.kind).0));
        }
    }
    if count > 0 {
        context.printer.note(LEGEND);
    }
    context.printer.note(&format!(
        "{}, {} added, {} removed",
        counted(count, "change", "changes"),
        ByteSize(added),
        ByteSize(removed)
    ));
    let value = json!({ "before": before_id.to_hex(), "after": after_id.to_hex(), "changes": changes,
                        "added_bytes": added, "removed_bytes": removed });
    context.printer.json("retoma.diff/1", value);
    Ok(Exit::Ok)
}

fn name(kind: ChangeKind) -> (char, &'static str) {
    match kind {
        ChangeKind::Added => ('+', "added"),
        ChangeKind::Removed => ('-', "removed"),
        ChangeKind::Content => ('M', "content"),
        ChangeKind::Metadata => ('U', "metadata"),
        ChangeKind::Type => ('T', "type"),
    }
}
