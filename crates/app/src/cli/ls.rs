//! `retoma ls`.

use crate::context::{self, AsOfArgs, Context};
use crate::exit::Exit;
use crate::output::table;
use retoma_core::Result;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::find::{self, Entry, Selector, Which};
use retoma_repo::ops::ls;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component
    component: String,
    /// A path in it (default: the component's folder)
    path: Option<String>,
    /// Also what is in folders further down
    #[arg(long, short = 'R')]
    recursive: bool,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    as_of: AsOfArgs,
}

/// Which snapshot of a component.
#[derive(Debug, clap::Args)]
pub(super) struct WhichArgs {
    /// The snapshot whose id starts so (default: the newest complete one)
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    snapshot: Option<String>,
    /// The newest complete snapshot in which nothing is newer than this: a backup of files counts from its end on
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Take an incomplete snapshot too
    #[arg(long)]
    incomplete: bool,
}

impl WhichArgs {
    /// The snapshot that is named, and the time.
    pub(super) fn named(&self) -> (Option<&str>, Option<&str>) {
        (self.snapshot.as_deref(), self.at.as_deref())
    }

    pub(super) fn selector(&self, component: &str) -> Result<Selector> {
        let which = match (&self.snapshot, &self.at) {
            (Some(id), _) => Which::Id(id.clone()),
            (None, Some(time)) => Which::At(context::timestamp(time)?),
            (None, None) => Which::Latest,
        };
        Ok(Selector {
            component: Some(component.to_owned()),
            host: None,
            which,
            include_incomplete: self.incomplete,
        })
    }
}

/// The path inside the snapshot: absolute ones as they are, others from the component's path on.
pub(super) fn inside(component_path: &str, path: Option<&str>) -> String {
    match path {
        None => component_path.to_owned(),
        Some(path) if path.starts_with('/') => path.to_owned(),
        Some(path) => format!("{}/{path}", component_path.trim_end_matches('/')),
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = match args.as_of.time()? {
        Some(_) => context.open_as_of(&loaded.manifest, &args.as_of)?,
        None => context.open_cached(&loaded.manifest)?,
    };
    let (id, snapshot) = find::snapshot(&repository, &args.which.selector(&args.component)?)?;
    let index = context.readable_index(&repository)?;
    let root = snapshot.paths.first().map_or("/", String::as_str);
    let path = inside(root, args.path.as_deref());
    let mut list = Vec::new();
    for entry in ls::list(&repository, &index, &snapshot, path.as_bytes(), args.recursive)? {
        let Entry { path, node } = entry?;
        let path = table::path(&path);
        if context.printer.json {
            list.push(object(&path, &node));
        } else {
            context.printer.data(&line(&path, &node));
        }
    }
    context.printer.json("retoma.ls/1", json!({ "snapshot": id.to_hex(), "component": args.component, "kind": snapshot.kind(), "entries": list }));
    Ok(Exit::Ok)
}

fn kind_letter(kind: NodeKind) -> char {
    match kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::BlockDevice => 'b',
        NodeKind::CharDevice => 'c',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::Irregular => '?',
    }
}

fn line(path: &str, node: &Node) -> String {
    let owner = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { table::printable(name) };
    let time = node.mtime.zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let target =
        node.link_target.as_deref().map(|target| format!(" -> {}", table::path(target))).unwrap_or_default();
    format!(
        "{}{:04o} {:>8} {:>8} {:>12} {time} {path}{target}",
        kind_letter(node.kind),
        node.mode,
        owner(&node.user, node.uid),
        owner(&node.group, node.gid),
        node.size_bytes,
    )
}

fn object(path: &str, node: &Node) -> serde_json::Value {
    json!({
        "path": path, "type": node.kind, "mode": format!("{:04o}", node.mode), "uid": node.uid, "gid": node.gid,
        "size_bytes": node.size_bytes, "mtime": node.mtime.0.to_string(),
        "target": node.link_target.as_deref().map(table::path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_component() {
        assert_eq!(inside("/srv/models", None), "/srv/models");
        assert_eq!(inside("/srv/models", Some("a/b")), "/srv/models/a/b");
        assert_eq!(inside("/srv/models", Some("/srv/models/a")), "/srv/models/a");
        assert_eq!(inside("/", Some("a")), "/a");
    }
}
