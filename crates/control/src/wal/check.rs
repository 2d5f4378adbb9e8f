//! What of the WAL is there and what is missing: from each snapshot on, along the timelines.

use jiff::Timestamp;
use retoma_core::decide::recovery::{Candidate, Ended, Way, Window, newest_timeline, windows};
use retoma_core::postgres::{Lsn, SegmentSize, TimelineHistory, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::format::snapshot::Snapshot;
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
    /// … and until here it is inside the snapshot, …
    pub stop: Lsn,
    /// … which was then; where nobody noted it, when the backup began.
    pub stopped: Timestamp,
    /// The transactions that it holds, where that is known.
    pub ended: Option<Ended>,
    /// The numbers of the tablespaces that it holds.
    pub tablespaces: Vec<u32>,
    /// Whether everything was read.
    pub is_complete: bool,
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
    /// The timelines' histories; of a snapshot's own timeline, at least that it is one.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
}

impl ServerWal {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.gaps.is_empty() && self.without_history.is_empty()
    }

    /// The complete snapshots, as what a recovery can begin with.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.snapshots.iter().filter(|snapshot| snapshot.is_complete).map(SnapshotWindow::candidate).collect()
    }

    /// What can be recovered, along the newest timeline that a complete snapshot leads to, oldest first.
    pub fn windows(&self) -> Vec<Window> {
        let candidates = self.candidates();
        newest_timeline(&candidates).map_or_else(Vec::new, |timeline| windows(&candidates, timeline))
    }
}

impl SnapshotWindow {
    /// As what a recovery can begin with.
    pub fn candidate(&self) -> Candidate {
        let way = |way: &Coverage| Way {
            timeline: way.timeline,
            until: way.until,
            gap: way.gaps.first().map(|gap| (gap.first, gap.last)),
        };
        Candidate {
            timeline: self.timeline,
            stop: self.stop,
            stopped: self.stopped,
            ended: self.ended.clone(),
            ways: self.ways.iter().map(way).collect(),
        }
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
    /// The data are consistent here …
    pub stop: Lsn,
    /// … which was then; where nobody noted it, when the backup began.
    pub stopped: Timestamp,
    /// The transactions that it holds, where that is known.
    pub ended: Option<Ended>,
    /// The numbers of the tablespaces that it holds.
    pub tablespaces: Vec<u32>,
    /// Whether everything was read.
    pub is_complete: bool,
}

impl WalFacts {
    fn new(id: SnapshotId, snapshot: &Snapshot, facts: &PostgresFacts) -> Result<Self> {
        let wrong = |what: &str| {
            let message = format!("snapshot `{}` has facts without a {what}", id.short());
            Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
        };
        Ok(Self {
            id,
            component: snapshot.component().unwrap_or_default().to_owned(),
            time: snapshot.time,
            system_identifier: facts.server.system_identifier,
            size: SegmentSize::new(facts.server.wal_segment_bytes).map_err(|_| wrong("segment size"))?,
            timeline: TimelineId::new(facts.timeline).ok_or_else(|| wrong("timeline"))?,
            start: facts.start_lsn.parse().map_err(|_| wrong("start"))?,
            stop: facts.stop_lsn.parse().map_err(|_| wrong("stop"))?,
            stopped: facts.stop_time.unwrap_or(snapshot.time.0),
            ended: facts.stop_transactions.as_deref().and_then(|text| text.parse().ok()),
            tablespaces: facts.tablespaces.iter().map(|space| space.oid).collect(),
            is_complete: !snapshot.is_incomplete(),
        })
    }
}

/// Every physical snapshot of a PostgreSQL server in the repository, oldest first.
///
/// # Errors
/// What reading the repository says; `Corrupt` with `R0408` for facts that are none.
pub fn wal_facts(repository: &Repository) -> Result<Vec<WalFacts>> {
    each_wal_facts(repository)?.into_iter().collect()
}

/// As [`wal_facts`], where a snapshot that cannot be read does not hide the others.
///
/// # Errors
/// What listing the repository says.
pub fn each_wal_facts(repository: &Repository) -> Result<Vec<Result<WalFacts>>> {
    let snapshots = repository.snapshots()?;
    let physical = snapshots.iter().filter(|(_, snapshot)| snapshot.kind() == Some("postgres"));
    let mut found = Vec::new();
    let mut index = None;
    for (id, snapshot) in physical {
        let index = match &index {
            Some(index) => index,
            // What is in a damaged part of it is told of the snapshot that needs it.
            None => index.insert(repository.load_readable_index()?),
        };
        let facts = facts_of(repository, index, &snapshot.tree)
            .with_context(|| format!("read the facts of snapshot {}", id.short()));
        found.extend(facts.transpose().map(|facts| WalFacts::new(*id, snapshot, &facts?)));
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
        found.extend(look(&[archive], size, &own)?);
    }
    Ok(found)
}

/// What the archives of one server have together, and how far it carries its snapshots; `None` without an archive.
///
/// # Errors
/// What reading the repositories says.
pub fn look(archives: &[Archive], size: SegmentSize, facts: &[&WalFacts]) -> Result<Option<ServerWal>> {
    let Some((first, others)) = archives.split_first() else { return Ok(None) };
    let mut listing = first.list(size)?;
    for other in others {
        listing.join(other.list(size)?);
    }
    let mut histories = BTreeMap::new();
    let mut without_history = Vec::new();
    let begun = facts.iter().map(|facts| facts.timeline);
    for timeline in listing.timelines.keys().copied().chain(begun.clone()).collect::<BTreeSet<_>>() {
        let mut found = archives.iter().map(|archive| archive.history(timeline));
        match found.find_map(Result::transpose).transpose()? {
            Some(history) => {
                histories.insert(timeline, history);
            }
            None => without_history.push(timeline),
        }
    }
    // Where a backup is on a timeline, it needs no history to stay there.
    for timeline in begun {
        if let Ok(alone) = TimelineHistory::parse(timeline, "") {
            histories.entry(timeline).or_insert(alone);
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
    Ok(Some(ServerWal {
        component: first.component().to_owned(),
        system_identifier: first.system_identifier(),
        listing,
        snapshots,
        gaps,
        without_history,
        histories,
    }))
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
        stopped: facts.stopped,
        ended: facts.ended.clone(),
        tablespaces: facts.tablespaces.clone(),
        is_complete: facts.is_complete,
        ways: ways(histories, facts.timeline, facts.stop).into_iter().map(reached).collect(),
    }
}

/// Where the WAL on the way to a timeline begins.
fn oldest(listing: &Listing, history: &TimelineHistory) -> Lsn {
    let timelines = history.entries().iter().map(|entry| entry.timeline).chain([history.timeline()]);
    let first = timelines.into_iter().find_map(|timeline| listing.timelines.get(&timeline)?.segments.first());
    first.and_then(|number| listing.size.start_of_number(number)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
