//! What of the WAL is there and what is missing: from each snapshot on, along the timelines.

use retoma_core::postgres::{Lsn, SegmentSize, TimelineHistory, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::format::time::Time;
use retoma_repo::wal::{self, Archive, Coverage, Gap, Listing, Numbers, coverage, ways};
use retoma_repo::{Repository, SnapshotId};
use retoma_sources::postgres::{PostgresFacts, facts_of};
use std::collections::{BTreeMap, BTreeSet};

/// A physical snapshot, and how far the archive carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotWindow {
    /// The snapshot.
    pub id: SnapshotId,
    /// When its backup began.
    pub time: Time,
    /// The timeline of its backup.
    pub timeline: TimelineId,
    /// WAL is needed from here on …
    pub start: Lsn,
    /// … and until here it is inside the snapshot.
    pub stop: Lsn,
    /// One for each timeline that can be reached from it.
    pub ways: Vec<Coverage>,
}

/// What is known of one server's WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerWal {
    /// The component.
    pub component: String,
    /// The server.
    pub system_identifier: u64,
    /// What is stored.
    pub listing: Listing,
    /// Its physical snapshots, oldest first.
    pub snapshots: Vec<SnapshotWindow>,
    /// What is missing, from the oldest snapshot on; without snapshots, from the oldest WAL on.
    pub gaps: BTreeSet<Gap>,
    /// Timelines that have WAL and no history: no recovery finds the way to them.
    pub without_history: Vec<TimelineId>,
}

impl ServerWal {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.gaps.is_empty() && self.without_history.is_empty()
    }
}

/// A physical snapshot's facts, as far as WAL is concerned.
#[derive(Debug, Clone)]
pub struct WalFacts {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its component.
    pub component: String,
    /// When its backup began.
    pub time: Time,
    /// The server.
    pub system_identifier: u64,
    /// The size of its segments.
    pub size: SegmentSize,
    /// The timeline.
    pub timeline: TimelineId,
    /// WAL is needed from here on.
    pub start: Lsn,
    /// The data are consistent here.
    pub stop: Lsn,
}

impl WalFacts {
    fn new(id: SnapshotId, component: &str, time: Time, facts: &PostgresFacts) -> Result<Self> {
        let wrong = |what: &str| {
            let message = format!("snapshot `{}` has facts without a {what}", id.short());
            Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
        };
        Ok(Self {
            id,
            component: component.to_owned(),
            time,
            system_identifier: facts.server.system_identifier,
            size: SegmentSize::new(facts.server.wal_segment_bytes).map_err(|_| wrong("segment size"))?,
            timeline: TimelineId::new(facts.timeline).ok_or_else(|| wrong("timeline"))?,
            start: facts.start_lsn.parse().map_err(|_| wrong("start"))?,
            stop: facts.stop_lsn.parse().map_err(|_| wrong("stop"))?,
        })
    }
}

/// Every physical snapshot of a PostgreSQL server in the repository, oldest first.
///
/// # Errors
/// What reading the repository says; `Corrupt` with `R0408` for facts that are none.
pub fn wal_facts(repository: &Repository) -> Result<Vec<WalFacts>> {
    let snapshots = repository.snapshots()?;
    let physical = snapshots.iter().filter(|(_, snapshot)| snapshot.kind() == Some("postgres"));
    let mut found = Vec::new();
    let mut index = None;
    for (id, snapshot) in physical {
        let index = match &index {
            Some(index) => index,
            None => index.insert(repository.load_index()?),
        };
        let facts = facts_of(repository, index, &snapshot.tree)
            .with_context(|| format!("read the facts of snapshot {}", id.short()))?;
        let component = snapshot.component().unwrap_or_default();
        if let Some(facts) = facts {
            found.push(WalFacts::new(*id, component, snapshot.time, &facts)?);
        }
    }
    Ok(found)
}

/// Looks at the WAL of every server in the repository, or of one component. Segments are not read.
///
/// # Errors
/// What reading the repository says.
pub fn check(repository: &Repository, component: Option<&str>) -> Result<Vec<ServerWal>> {
    let facts = wal_facts(repository)?;
    let mut servers = BTreeMap::new();
    for server in wal::servers(repository)? {
        servers.insert((server.component, server.system_identifier), server.first_segment);
    }
    for facts in &facts {
        servers.entry((facts.component.clone(), facts.system_identifier)).or_default();
    }
    let is_meant = |name: &str| component.is_none_or(|meant| meant == name);
    let mut found = Vec::new();
    for ((component, system_identifier), first_segment) in servers {
        if !is_meant(&component) {
            continue;
        }
        let archive = Archive::new(repository, &component, system_identifier)?;
        let own: Vec<&WalFacts> = facts
            .iter()
            .filter(|facts| facts.component == component && facts.system_identifier == system_identifier)
            .collect();
        let said = own.last().map(|facts| facts.size);
        let size = match (said, first_segment) {
            (Some(size), _) => size,
            (None, Some(first)) => archive.segment_size(first)?.unwrap_or_default(),
            (None, None) => SegmentSize::default(),
        };
        found.push(look(&archive, archive.list(size)?, &own)?);
    }
    Ok(found)
}

fn look(archive: &Archive, listing: Listing, facts: &[&WalFacts]) -> Result<ServerWal> {
    let mut histories = BTreeMap::new();
    let mut without_history = Vec::new();
    let begun = facts.iter().map(|facts| facts.timeline);
    for timeline in listing.timelines.keys().copied().chain(begun).collect::<BTreeSet<_>>() {
        match archive.history(timeline)? {
            Some(history) => {
                histories.insert(timeline, history);
            }
            None => without_history.push(timeline),
        }
    }
    let snapshots: Vec<SnapshotWindow> =
        facts.iter().map(|facts| window(&listing, &histories, facts)).collect();
    let mut gaps = BTreeSet::new();
    if snapshots.is_empty() {
        for history in histories.values() {
            let from = oldest(&listing, history);
            gaps.extend(coverage(&listing, history, from, &Numbers::default()).gaps);
        }
    }
    gaps.extend(
        snapshots.iter().flat_map(|snapshot| &snapshot.ways).flat_map(|way| way.gaps.iter().copied()),
    );
    Ok(ServerWal {
        component: archive.component().to_owned(),
        system_identifier: archive.system_identifier(),
        listing,
        snapshots,
        gaps,
        without_history,
    })
}

fn window(
    listing: &Listing,
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    facts: &WalFacts,
) -> SnapshotWindow {
    let mut own = Numbers::default();
    own.insert_range(facts.size.number_of(facts.start), facts.size.number_before(facts.stop));
    let reached = |history: &TimelineHistory| {
        let way = coverage(listing, history, facts.start, &own);
        // What it has inside it is enough to get to its stop.
        Coverage { until: way.until.max(facts.stop), ..way }
    };
    SnapshotWindow {
        id: facts.id,
        time: facts.time,
        timeline: facts.timeline,
        start: facts.start,
        stop: facts.stop,
        ways: ways(histories, facts.timeline, facts.stop).into_iter().map(reached).collect(),
    }
}

/// Where the WAL on the way to a timeline begins.
fn oldest(listing: &Listing, history: &TimelineHistory) -> Lsn {
    let timelines = history.entries().iter().map(|entry| entry.timeline).chain([history.timeline()]);
    let first = timelines.into_iter().find_map(|timeline| listing.timelines.get(&timeline)?.segments.first());
    first.and_then(|number| listing.size.start_of_number(number)).unwrap_or_default()
}
