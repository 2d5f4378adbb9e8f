//! The WAL of PostgreSQL servers under the agent: a stream for each, begun again when it ends, and a look at its slot.

use super::marks;
use crate::Interrupt;
use crate::wal::archiver::ArchiverWatch;
use crate::wal::stream::{self, Alarm, SlotUse, SlotWatch, StreamEvent, StreamJob};
use crate::wal::tablespaces::TablespaceWatch;
use jiff::Timestamp;
use retoma_core::decide::archiving::Archiving;
use retoma_core::decide::observed::{Slot, Stream};
use retoma_core::manifest::{Component, ComponentKind, Manifest, WalMode};
use retoma_core::{Error, Result};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The pause before a stream is begun again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// From one look at a slot to the next.
const LOOK: Duration = Duration::from_secs(15);

/// From one look at an archiver to the next.
const LOOK_AT_ARCHIVER: Duration = Duration::from_secs(5);

/// Tells a person something.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// What is known of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Everything but gaps and window of the archive.
    pub(super) stream: Stream,
    /// When the stream last told of a gap.
    pub(super) gap_at: Option<Timestamp>,
    /// The server's tablespaces at the last look that it answered.
    pub(super) tablespaces: Option<BTreeSet<u32>>,
}

/// The WAL of one component.
#[derive(Debug)]
pub(super) struct Wal {
    known: Arc<Mutex<Known>>,
    thread: Option<JoinHandle<()>>,
}

impl Wal {
    /// Streams what the manifest wants streamed, until `interrupt`.
    pub(super) fn start_all(
        manifest: &Arc<Manifest>,
        interrupt: &Interrupt,
        tell: &Tell,
    ) -> Result<Vec<Self>> {
        let servers =
            manifest.components.iter().filter(|component| component.kind() == ComponentKind::Postgres);
        let mut all = Vec::new();
        for component in servers {
            let is_wanted = component.wal.mode != WalMode::Archive;
            let down = is_wanted.then(|| "it is not connected yet".to_owned());
            let stream = Stream { component: component.name.clone(), is_wanted, down, ..Stream::default() };
            let known = Arc::new(Mutex::new(Known { stream, ..Known::default() }));
            let mut wal = Self { known: Arc::clone(&known), thread: None };
            if is_wanted {
                let (manifest, name) = (Arc::clone(manifest), component.name.clone());
                let (interrupt, tell) = (interrupt.clone(), Arc::clone(tell));
                let own = (Arc::clone(&known), Arc::clone(&manifest), name.clone(), interrupt.clone());
                wal.thread =
                    Some(spawn("wal-stream", move || keep(&known, &manifest, &name, &interrupt, &tell))?);
                spawn("wal-slots", move || watch(&own.0, &own.1, &own.2, &own.3))?;
            } else {
                lock(&known).stream.archive_promised = component.wal.archive_timeout;
                let (manifest, name, interrupt) =
                    (Arc::clone(manifest), component.name.clone(), interrupt.clone());
                spawn("wal-archive", move || watch_archive(&known, &manifest, &name, &interrupt))?;
            }
            if component.has_marks {
                let (known, manifest) = (Arc::clone(&wal.known), Arc::clone(manifest));
                let (name, interrupt) = (component.name.clone(), interrupt.clone());
                spawn("marks", move || marks::write(&known, &manifest, &name, &interrupt))?;
            }
            all.push(wal);
        }
        Ok(all)
    }

    /// What is known now.
    pub(super) fn known(&self) -> Known {
        lock(&self.known).clone()
    }

    /// Whether the stream has stored what it had, and ended.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::io("a thread for the WAL of a server", error))
}

pub(super) fn lock(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins the stream again whenever it ends.
fn keep(known: &Mutex<Known>, manifest: &Manifest, name: &str, interrupt: &Interrupt, tell: &Tell) {
    let Some(component) = manifest.component(name) else { return };
    let mut pause = FIRST_PAUSE;
    while !interrupt.is_set() {
        let begun = Instant::now();
        let mut hear = |event: &StreamEvent<'_>| {
            lock(known).hear(event, Timestamp::now());
            if !matches!(event, StreamEvent::Shipped { .. } | StreamEvent::Stopped) {
                tell(&format!("WAL of {name}: {event}"));
            }
        };
        let ended =
            StreamJob::new(manifest, component).and_then(|job| stream::stream(&job, interrupt, &mut hear));
        match ended {
            Ok(()) if interrupt.is_set() => return,
            Ok(()) => lock(known).stream.down = Some("it ended".to_owned()),
            Err(error) => {
                tell(&format!("the WAL stream of {name} ended: {error} [{}]", error.code()));
                lock(known).stream.down = Some(format!("{error} ({})", error.code()));
            }
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        super::pause(interrupt, pause, || false);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks at the slot now and then, whether somebody streams or not.
fn watch(known: &Mutex<Known>, manifest: &Manifest, name: &str, interrupt: &Interrupt) {
    let Some(component) = manifest.component(name) else { return };
    let (mut eyes, mut spaces) = (None, None);
    loop {
        super::pause(interrupt, LOOK, || false);
        if interrupt.is_set() {
            return;
        }
        look_at_tablespaces(&mut spaces, known, component);
        if eyes.is_none() {
            eyes = StreamJob::new(manifest, component).ok().map(|job| SlotWatch::new(&job));
        }
        let found = eyes.as_mut().and_then(|eyes| eyes.look().ok());
        let slot = found.map(|state| Slot {
            is_read: state.usage == SlotUse::Active,
            retained_bytes: state.retained_bytes,
            limit_bytes: component.wal.slot_limit_bytes,
        });
        let mut known = lock(known);
        (known.stream.slot, known.stream.slot_unknown) = (slot, slot.is_none());
    }
}

/// Looks at the server's archiver now and then. Where nothing is promised and the server does not archive, it need not.
fn watch_archive(known: &Mutex<Known>, manifest: &Manifest, name: &str, interrupt: &Interrupt) {
    let Some(component) = manifest.component(name) else { return };
    let (mut eyes, mut archiving, mut spaces) = (None, Archiving::default(), None);
    let mut is_wanted = component.wal.archive_timeout.is_some();
    while !interrupt.is_set() {
        look_at_tablespaces(&mut spaces, known, component);
        if eyes.is_none() {
            eyes = ArchiverWatch::new(component).ok();
        }
        let found = eyes.as_mut().and_then(|eyes| eyes.look().ok());
        is_wanted |= found.is_some_and(|state| state.is_on);
        {
            let stream = &mut lock(known).stream;
            stream.archive = found.filter(|_| is_wanted).map(|state| archiving.see(&state, Timestamp::now()));
            stream.archive_unknown = is_wanted && found.is_none();
        }
        super::pause(interrupt, LOOK_AT_ARCHIVER, || false);
    }
}

/// What the server last said counts when it does not answer: whether it does is looked at elsewhere.
fn look_at_tablespaces(eyes: &mut Option<TablespaceWatch>, known: &Mutex<Known>, component: &Component) {
    if eyes.is_none() {
        *eyes = TablespaceWatch::new(component).ok();
    }
    if let Some(found) = eyes.as_mut().and_then(|eyes| eyes.look().ok()) {
        lock(known).tablespaces = Some(found);
    }
}

impl Known {
    /// Takes in what a stream tells.
    fn hear(&mut self, event: &StreamEvent<'_>, now: Timestamp) {
        let stream = &mut self.stream;
        match event {
            StreamEvent::Connected { .. } | StreamEvent::Cleared { alarm: Alarm::Connection } => {
                stream.down = None;
            }
            StreamEvent::Shipped { lag_bytes, lag, .. } => {
                stream.down = None;
                (stream.lag_bytes, stream.lag_seconds) = (Some(*lag_bytes), Some(lag.as_secs_f64()));
            }
            StreamEvent::Gap { .. } => self.gap_at = Some(now),
            StreamEvent::Raised { alarm: Alarm::Connection, error } => {
                stream.down = Some(format!("{error} ({})", error.code()));
            }
            StreamEvent::Raised { alarm: Alarm::Repository(name), .. } => {
                stream.stuck_repositories.retain(|stuck| stuck != name);
                stream.stuck_repositories.push(name.clone());
            }
            StreamEvent::Cleared { alarm: Alarm::Repository(name) } => {
                stream.stuck_repositories.retain(|stuck| stuck != name);
            }
            StreamEvent::Stopped => {
                stream.stuck_repositories.clear();
                stream.down = Some("it was stopped".to_owned());
            }
            // The slot's own figures say the same.
            StreamEvent::Raised { .. } | StreamEvent::Cleared { .. } | StreamEvent::Timeline { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::decide::streaming::Position;
    use retoma_core::postgres::{Lsn, TimelineId};
    use retoma_core::{ErrorKind, error::codes};

    #[test]
    fn what_a_stream_tells_is_its_state() {
        let error = Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, "it is away");
        let position = Position { timeline: TimelineId::FIRST, lsn: Lsn(1) };
        let (connection, far) = (Alarm::Connection, Alarm::Repository("far".to_owned()));
        let now = Timestamp::from_second(5).unwrap();
        let mut known = Known::default();
        known.stream.down = Some("not yet".to_owned());
        known.hear(&StreamEvent::Connected { system_identifier: 1, start: position, slot: "s" }, now);
        assert_eq!(known.stream.down, None);
        known.hear(&StreamEvent::Raised { alarm: &connection, error: &error }, now);
        assert!(known.stream.down.as_ref().unwrap().contains("R0303"));
        known.hear(&StreamEvent::Cleared { alarm: &connection }, now);
        known.hear(&StreamEvent::Raised { alarm: &far, error: &error }, now);
        known.hear(&StreamEvent::Raised { alarm: &far, error: &error }, now);
        assert_eq!(
            (known.stream.down.clone(), known.stream.stuck_repositories.clone()),
            (None, vec!["far".to_owned()])
        );
        known.hear(&StreamEvent::Cleared { alarm: &far }, now);
        let lag = Duration::from_millis(250);
        known.hear(&StreamEvent::Shipped { position, lag_bytes: 7, lag }, now);
        known.hear(&StreamEvent::Gap { from: position, to: position, error: &error }, now);
        let Known { stream, gap_at, .. } = known;
        assert_eq!((stream.lag_bytes, stream.lag_seconds, gap_at), (Some(7), Some(0.25), Some(now)));
        assert!(stream.stuck_repositories.is_empty());
    }
}
