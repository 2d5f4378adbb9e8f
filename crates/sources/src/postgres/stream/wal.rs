//! The WAL of a backup through the replication protocol, as whole segments. Its records are read as they pass: each checksum must
//! fit up to where the backup ended, or a server could not start from the snapshot.

use crate::postgres::wal_records::RecordReader;
use crate::postgres::wire::{Connection, Progress, ReplicationMessage, ReplicationStream};
use bytes::{Buf as _, BytesMut};
use retoma_core::postgres::{Lsn, SegmentHeader, SegmentName, SegmentSize, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::backup::{Content, Found, Reader};
use retoma_repo::format::tree::Node;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the server may be waited for until it has sent [`ENOUGH_BYTES`] more: all of the WAL is there when it is asked for.
const WAIT: Duration = Duration::from_mins(2);
/// Less than the slowest line brings in that time. A server that sends a byte now and then would hold us for ever otherwise.
const ENOUGH_BYTES: u64 = 64 << 10;
/// After so many bytes the server is told how far we are.
const TOLD_BYTES: u64 = 8 << 20;

/// The WAL from the beginning of a segment on.
#[derive(Debug)]
pub(super) struct Wal {
    stream: ReplicationStream,
    /// What came and was not taken.
    data: BytesMut,
    told: Lsn,
    patience: Patience,
    size: SegmentSize,
    system_identifier: u64,
    /// The segment that is read now.
    current: SegmentName,
    left_bytes: u64,
    records: RecordReader,
    /// Behind the last record that was whole.
    whole_until: Lsn,
    broken: Option<Error>,
}

/// How long the server is still waited for. Only time that we wait counts: a repository may take long.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    waited: Duration,
    /// What came in that time.
    bytes: u64,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, bytes: 0 }
    }

    /// What is left after a wait that goes on for so long; `None` when it is over.
    fn left(&self, waiting: Duration) -> Option<Duration> {
        self.limit.checked_sub(self.waited + waiting).filter(|left| !left.is_zero())
    }

    /// So many bytes came after so long.
    fn came(&mut self, bytes: u64, waited: Duration) {
        self.bytes += bytes;
        self.waited += waited;
        if self.bytes >= ENOUGH_BYTES {
            *self = Self::new(self.limit);
        }
    }
}

fn lock(wal: &Mutex<Wal>) -> MutexGuard<'_, Wal> {
    wal.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wal {
    /// From the segment of `start` on.
    pub(super) fn begin(
        connection: Connection,
        (start, timeline): (Lsn, TimelineId),
        size: SegmentSize,
        system_identifier: u64,
    ) -> Result<Arc<Mutex<Self>>> {
        let from = size.start_of(start);
        let stream = connection.start_replication(None, from, Some(timeline));
        let current = SegmentName::at(timeline, start, size);
        Ok(Arc::new(Mutex::new(Self {
            stream: stream.context("ask for the WAL of the backup")?,
            data: BytesMut::new(),
            told: from,
            patience: Patience::new(WAIT),
            size,
            system_identifier,
            current,
            left_bytes: 0,
            records: RecordReader::new(from, size, system_identifier),
            whole_until: from,
            broken: None,
        })))
    }

    /// The next segment: waits until its beginning has come, which must be what the name says.
    pub(super) fn segment(wal: &Arc<Mutex<Self>>, name: SegmentName) -> Result<Segment> {
        let mut this = lock(wal);
        if let Some(error) = this.broken.take() {
            return Err(error);
        }
        if this.left_bytes > 0 {
            return Err(Error::internal("a segment was not read to its end"));
        }
        (this.current, this.left_bytes) = (name, this.size.bytes());
        while this.data.len() < SegmentHeader::BYTES {
            this.receive()?;
        }
        SegmentHeader::check(&this.data, this.size.bytes(), name, this.size, this.system_identifier)?;
        Ok(Segment(Arc::clone(wal)))
    }

    /// Behind the last segment: whether all of it has come, and is whole up to `stop`, where the backup ended.
    ///
    /// # Errors
    /// `R0426` when a record before `stop` is not what the server wrote.
    pub(super) fn end(wal: &Arc<Mutex<Self>>, stop: Lsn) -> Result<()> {
        let mut this = lock(wal);
        if let Some(error) = this.broken.take() {
            return Err(error);
        }
        if this.left_bytes > 0 {
            return Err(Error::internal("a segment was not read to its end"));
        }
        if this.whole_until >= stop {
            return Ok(());
        }
        let why = match this.records.end() {
            Some(end) => format!("at `{}` is {}", end.at, end.why),
            None => format!("its last record ends at `{}`", this.whole_until),
        };
        let message =
            format!("the WAL that PostgreSQL sent does not lead to the end of the backup at `{stop}`: {why}");
        Err(Error::new(ErrorKind::Corrupt, codes::POSTGRES_STREAM, message)
            .with_hint("run the backup again; if it comes back, look at the network between the two hosts"))
    }

    fn receive(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            // Messages that are there come whatever the time, and one without bytes brings us no further.
            let Some(left) = self.patience.left(begun.elapsed()) else {
                return Err(self.missing("the server does not send it"));
            };
            match self.stream.next(left)? {
                Some(ReplicationMessage::XLogData { bytes, .. }) if !bytes.is_empty() => {
                    self.patience.came(bytes.len() as u64, begun.elapsed());
                    self.data.extend_from_slice(&bytes);
                    if self.stream.position().bytes_since(self.told) >= TOLD_BYTES {
                        self.tell()?;
                    }
                    return Ok(());
                }
                Some(ReplicationMessage::Keepalive { reply_requested: true, .. }) => self.tell()?,
                Some(ReplicationMessage::EndOfTimeline { .. } | ReplicationMessage::ServerStopped) => {
                    return Err(self.missing("the server has ended its WAL"));
                }
                Some(ReplicationMessage::XLogData { .. } | ReplicationMessage::Keepalive { .. }) | None => {}
            }
        }
    }

    fn tell(&mut self) -> Result<()> {
        self.told = self.stream.position();
        let progress = Progress { written: self.told, flushed: self.told, ..Progress::default() };
        self.stream.status_update(progress, false)
    }

    fn missing(&self, why: &str) -> Error {
        let message = format!("WAL segment `{}`, which the backup needs, does not come: {why}", self.current);
        Error::new(ErrorKind::Unavailable, codes::WAL_MISSING, message).with_hint("run the backup again")
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.left_bytes == 0 || buffer.is_empty() {
            return Ok(0);
        }
        while self.data.is_empty() {
            if let Err(error) = self.receive() {
                let shown = Error::new(error.kind(), error.code(), error.message().to_owned());
                self.broken = Some(error);
                return Err(shown);
            }
        }
        let left = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let count = buffer.len().min(self.data.len()).min(left);
        buffer[..count].copy_from_slice(&self.data[..count]);
        let whole_until = &mut self.whole_until;
        self.records.read(&buffer[..count], &mut |record| *whole_until = record.end);
        self.data.advance(count);
        self.left_bytes -= count as u64;
        Ok(count)
    }
}

/// One segment; read before the next one is asked for.
pub(super) struct Segment(Arc<Mutex<Wal>>);

impl Content for Segment {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
}

impl Reader for Segment {
    fn size_bytes(&self) -> Option<u64> {
        Some(lock(&self.0).size.bytes())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        lock(&self.0).read(buffer)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
