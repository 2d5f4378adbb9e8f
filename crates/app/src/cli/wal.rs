//! `retoma wal`.

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::table;
use clap::Subcommand;
use retoma_control::wal::check::{self, ServerWal, SnapshotWindow};
use retoma_control::wal::{self, Job, Source, Stored};
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::wal::{Share, examine};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

impl Args {
    /// Whether it runs until a signal stops it.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.action, Action::Stream(_))
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Store a WAL file in every repository of the component: `archive_command = 'retoma … wal push %p --component NAME'`
    Push {
        /// The file, in the `pg_wal` of the server
        path: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Fetch a WAL file: `restore_command = 'retoma … wal fetch %f %p --component NAME'`
    ///
    /// Ends with 1 when the file is not in the archive, and with 200 when that cannot be known: then PostgreSQL stops
    /// instead of starting without WAL that exists.
    Fetch {
        /// The file's name
        name: String,
        /// Where PostgreSQL wants it
        path: PathBuf,
        #[command(flatten)]
        server: Server,
    },
    /// Ship the WAL of a server into every repository of the component as it is written, until it is stopped
    ///
    /// What `[component.wal]` in the manifest says about the slot and its limit holds. With `--json`, one line for each event.
    Stream(super::wal_stream::Args),
    /// Name the WAL that is missing, from the oldest snapshot on; ends with 4 when there is a gap
    Check {
        /// Only of this component
        #[arg(long, value_name = "NAME")]
        component: Option<String>,
        /// Read and decrypt every object too, and name those that are damaged
        #[arg(long)]
        read_data: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Server {
    /// The component of kind `postgres`
    #[arg(long, value_name = "NAME")]
    component: String,
    /// The folder for what is done ahead (default: `.retoma/wal` beside the manifest)
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Do nothing ahead
    #[arg(long, conflicts_with = "spool")]
    no_spool: bool,
    /// The server, where there is no data directory around the file that says it
    #[arg(long, value_name = "NUMBER")]
    system_identifier: Option<u64>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    match &args.action {
        Action::Push { path, server } => push(context, path, server),
        Action::Fetch { name, path, server } => fetch(context, name, path, server),
        Action::Stream(args) => super::wal_stream::run(context, args),
        Action::Check { component, read_data } => check(context, component.as_deref(), *read_data),
    }
}

/// Whether these words call `wal fetch`, also where they cannot be read as a command line.
pub(crate) fn is_fetch(words: impl Iterator<Item = impl AsRef<std::ffi::OsStr>>) -> bool {
    let mut words = words.skip_while(|word| word.as_ref() != "wal");
    words.any(|word| word.as_ref() == "fetch")
}

fn job(context: &Context, server: &Server) -> Result<Job> {
    let manifest = context.manifest()?.manifest;
    let component = context::component(&manifest, &server.component)?;
    let mut job = Job::new(&manifest, component, context.repository.as_deref())?;
    job.system_identifier = server.system_identifier;
    if server.spool.is_some() {
        job.spool.clone_from(&server.spool);
    }
    if server.no_spool {
        job.spool = None;
    }
    Ok(job)
}

/// On success nothing is said but as JSON: it would be in the server's log for every segment.
fn push(context: &Context, path: &Path, server: &Server) -> Result<Exit> {
    if let Some(name) = &context.repository {
        let message =
            format!("`wal push` stores in every repository of the component, not in `{name}` alone");
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
            .with_hint("leave `--repository` out, or list the component's `repositories` in the manifest"));
    }
    let report = wal::push(&job(context, server)?, path)?;
    let stored = match report.stored {
        Stored::New => "new",
        Stored::Same => "same",
        Stored::Ahead => "ahead",
    };
    let value = json!({ "name": report.name.to_string(), "system_identifier": report.system_identifier.to_string(),
                        "stored": stored, "ahead": report.ahead });
    context.printer.json("retoma.wal/1", value);
    Ok(Exit::Ok)
}

fn fetch(context: &Context, name: &str, path: &Path, server: &Server) -> Result<Exit> {
    let fetched = wal::fetch(&job(context, server)?, name, path)?;
    let source = fetched.source.map(|source| match source {
        Source::Repository => "repository",
        Source::Parts => "parts",
        Source::Spool => "spool",
    });
    let value = json!({ "name": fetched.name.to_string(), "system_identifier": fetched.system_identifier.to_string(),
                        "source": source, "ahead": fetched.ahead });
    context.printer.json("retoma.wal/1", value);
    Ok(if fetched.is_found() { Exit::Ok } else { Exit::NotArchived })
}

fn check(context: &Context, component: Option<&str>, read_data: bool) -> Result<Exit> {
    let manifest = context.manifest()?.manifest;
    if let Some(name) = component {
        context::component(&manifest, name)?;
    }
    let repository = context.open(&manifest)?;
    let servers = check::check(&repository, component)?;
    for server in &servers {
        show(context, server);
    }
    if servers.is_empty() {
        context.printer.data("no WAL is stored");
    }
    let mut damaged = Vec::new();
    if read_data {
        let progress = context.interrupt.progress();
        let examined = examine(&repository, component, Share::All, &|| progress.is_cancelled())?;
        for (name, error) in &examined.damaged {
            context.printer.data(&format!("damaged: {}: {error} [{}]", table::printable(name), error.code()));
        }
        let objects = counted(examined.read, "object", "objects");
        context.printer.data(&format!("{objects} read, {} damaged", examined.damaged.len()));
        damaged = examined.damaged;
    }
    let list: Vec<Value> = servers.iter().map(object).collect();
    let named = |(name, error): &(String, Error)| json!({ "object": name, "code": error.code().as_str(), "message": error.to_string() });
    let damages: Vec<Value> = damaged.iter().map(named).collect();
    context.printer.json("retoma.wal/1", json!({ "servers": list, "damaged": damages }));
    let is_good = damaged.is_empty() && servers.iter().all(ServerWal::is_whole);
    Ok(if is_good { Exit::Ok } else { Exit::Missed })
}

fn show(context: &Context, server: &ServerWal) {
    let say = |text: &str| context.printer.data(text);
    say(&format!("component {}, server {}", table::printable(&server.component), server.system_identifier));
    for (timeline, stored) in &server.listing.timelines {
        let parts = stored.parts.values().map(std::collections::BTreeSet::len).sum::<usize>();
        let segments = counted(stored.segments.count(), "segment", "segments");
        say(&format!("  timeline {timeline}: {segments}, {}", counted(parts as u64, "part", "parts")));
    }
    for snapshot in &server.snapshots {
        for way in &snapshot.ways {
            let (id, start) = (snapshot.id.short(), snapshot.start);
            say(&format!("  snapshot {id}: from {start} to {} on timeline {}", way.until, way.timeline));
        }
    }
    for gap in &server.gaps {
        let missing = counted(gap.segments, "segment", "segments");
        say(&format!("  missing: {} to {} ({missing})", gap.first, gap.last));
    }
    for timeline in &server.without_history {
        say(&format!("  missing: {}", timeline.history_file_name()));
    }
}

fn object(server: &ServerWal) -> Value {
    let timelines: Vec<Value> = server
        .listing
        .timelines
        .iter()
        .map(|(timeline, stored)| {
            json!({ "timeline": timeline.get(), "segments": stored.segments.count(),
                    "parts": stored.parts.values().map(std::collections::BTreeSet::len).sum::<usize>(),
                    "stored_bytes": stored.stored_bytes })
        })
        .collect();
    let gaps: Vec<Value> = server
        .gaps
        .iter()
        .map(|gap| {
            json!({ "first": gap.first.to_string(), "last": gap.last.to_string(), "segments": gap.segments })
        })
        .collect();
    let histories: Vec<String> =
        server.without_history.iter().map(|timeline| timeline.history_file_name()).collect();
    json!({
        "component": server.component, "system_identifier": server.system_identifier.to_string(),
        "segment_bytes": server.listing.size.bytes(), "timelines": timelines,
        "snapshots": server.snapshots.iter().map(window).collect::<Vec<_>>(),
        "gaps": gaps, "missing_histories": histories,
    })
}

fn window(snapshot: &SnapshotWindow) -> Value {
    let ways: Vec<Value> = snapshot
        .ways
        .iter()
        .map(|way| {
            json!({ "timeline": way.timeline.get(), "recoverable_until": way.until.to_string(),
                    "gaps": way.gaps.len(),
                    "first_missing": way.gaps.iter().map(|gap| gap.first.to_string()).collect::<Vec<_>>() })
        })
        .collect();
    json!({ "id": snapshot.id.to_hex(), "time": snapshot.time.0.to_string(), "timeline": snapshot.timeline.get(),
            "start_lsn": snapshot.start.to_string(), "stop_lsn": snapshot.stop.to_string(), "tablespaces": snapshot.tablespaces,
            "ways": ways })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_is_known_by_its_words() {
        let is = |line: &str| is_fetch(line.split(' '));
        assert!(is("retoma -f x wal --json fetch") && is("retoma wal fetch --wrong"));
        assert!(!is("retoma wal push fetch2") && !is("retoma fetch wal") && !is("retoma"));
    }
}
