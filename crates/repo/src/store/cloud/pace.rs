//! How slow a provider may be, and the reading of answers that holds it to that.
//!
//! Silence ends a call, and so does an answer that hardly moves: a byte now and then is no silence and would otherwise
//! hold a call until the deadline of the timeout layer, which is as long as a whole pack may take.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use std::time::{Duration, Instant};

/// How slow a provider may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// The longest silence before and within an answer; also the time over which its pace is measured.
    pub silence: Duration,
    /// What comes or goes more slowly is given up.
    pub slowest_bytes_per_second: u32,
}

impl Default for Patience {
    /// 10 s to connect, 60 s of silence, 4 KiB a second.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_mins(1),
            slowest_bytes_per_second: 4 << 10,
        }
    }
}

impl Patience {
    /// How long a request with a body of so many bytes may take until its answer begins.
    pub(super) fn until_answer(&self, body_bytes: usize) -> Duration {
        let slowest = u64::from(self.slowest_bytes_per_second.max(1));
        self.silence.saturating_add(Duration::from_secs(body_bytes as u64 / slowest))
    }

    fn is_too_slow(&self, bytes: u64, took: Duration) -> bool {
        let least = u128::from(self.slowest_bytes_per_second) * took.as_nanos();
        took >= self.silence && u128::from(bytes) * 1_000_000_000 < least
    }
}

/// Why an answer was not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) enum Broken<E> {
    /// It broke off.
    Failed(E),
    /// It hardly moved.
    Slow,
    /// It has more bytes than the answer's beginning said.
    TooLong,
}

/// Room that is made at once for an announced length; whoever announces more must send it first.
const ROOM_BYTES: u64 = 64 << 20;

/// All of an answer that was announced with `expected_bytes`; what comes may be less.
pub(in crate::store) async fn collect<E>(
    mut chunks: BoxStream<'_, Result<Bytes, E>>,
    expected_bytes: u64,
    patience: Patience,
) -> Result<Bytes, Broken<E>> {
    let (mut since, mut moved_bytes) = (Instant::now(), 0);
    let mut whole: Option<Vec<u8>> = None;
    let mut first = Bytes::new();
    let mut length_bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Broken::Failed)?;
        length_bytes += chunk.len() as u64;
        moved_bytes += chunk.len() as u64;
        if length_bytes > expected_bytes {
            return Err(Broken::TooLong);
        }
        if length_bytes == chunk.len() as u64 {
            // Often the only one; then it is not copied.
            first = chunk;
        } else {
            let whole = whole.get_or_insert_with(|| {
                let room = usize::try_from(expected_bytes.min(ROOM_BYTES)).unwrap_or_default();
                let mut whole = crate::memory::buffer(room);
                whole.extend_from_slice(&std::mem::take(&mut first));
                whole
            });
            whole.extend_from_slice(&chunk);
        }
        if length_bytes < expected_bytes && patience.is_too_slow(moved_bytes, since.elapsed()) {
            return Err(Broken::Slow);
        }
        if since.elapsed() >= patience.silence {
            (since, moved_bytes) = (Instant::now(), 0);
        }
    }
    Ok(whole.map_or(first, Bytes::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn patience(silence: Duration) -> Patience {
        Patience { silence, slowest_bytes_per_second: 1000, ..Patience::default() }
    }

    async fn collected(
        chunks: &[&'static str],
        expected_bytes: u64,
        silence: Duration,
    ) -> Result<Bytes, Broken<()>> {
        let chunks: Vec<_> = chunks.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
        collect(stream::iter(chunks).boxed(), expected_bytes, patience(silence)).await
    }

    #[tokio::test]
    async fn an_answer_is_put_together_and_never_longer_than_announced() {
        let long = Duration::from_mins(1);
        assert_eq!(collected(&[], 5, long).await.unwrap(), "");
        assert_eq!(collected(&["abc"], 3, long).await.unwrap(), "abc");
        assert_eq!(collected(&["", "ab", "", "c", "def"], 6, long).await.unwrap(), "abcdef");
        assert_eq!(collected(&["ab", "c"], 9, long).await.unwrap(), "abc", "who asked looks at the length");
        for chunks in [&["abcd"][..], &["ab", "cd"]] {
            assert_eq!(collected(chunks, 3, long).await, Err(Broken::TooLong));
        }
    }

    #[tokio::test]
    async fn an_answer_that_hardly_moves_is_given_up() {
        // Every chunk is later than no time at all, and brings less than any pace.
        let chunks = [Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))];
        let strict =
            Patience { silence: Duration::ZERO, slowest_bytes_per_second: u32::MAX, ..Patience::default() };
        let slow = collect(stream::iter(chunks).boxed(), 1 << 40, strict).await;
        assert_eq!(slow, Err::<_, Broken<()>>(Broken::Slow));
        assert!(patience(Duration::from_secs(2)).is_too_slow(1999, Duration::from_secs(2)));
        assert!(!patience(Duration::from_secs(2)).is_too_slow(2000, Duration::from_secs(2)));
        assert!(!patience(Duration::from_secs(2)).is_too_slow(0, Duration::from_secs(1)), "not measured yet");
    }

    #[test]
    fn what_is_sent_may_take_as_long_as_its_length_allows() {
        let patience = Patience::default();
        assert_eq!(patience.until_answer(0), Duration::from_mins(1));
        assert_eq!(patience.until_answer(4 << 20), Duration::from_mins(1) + Duration::from_secs(1024));
    }
}
