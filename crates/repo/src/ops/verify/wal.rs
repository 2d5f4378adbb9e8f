//! The lane of WAL. A damaged object hits no snapshot: each has inside it what it needs to start. It ends what can be
//! recovered behind them.

use super::report::Draft;
use super::{ReadData, Run};
use crate::wal::{Share, examine};
use retoma_core::Result;

/// Counts the objects, and reads as many as of the packs.
pub(super) fn check(run: &Run<'_>) -> Result<()> {
    let share = match run.options.read_data {
        ReadData::None => Share::None,
        ReadData::All => Share::All,
        ReadData::Sample(percent, seed) => Share::Sample(percent, seed),
    };
    let examined = examine(run.repository, None, share, &|| run.progress.is_cancelled())?;
    for (object, error) in examined.damaged {
        run.add(Draft::damage(object, &error));
    }
    let mut state = run.state();
    state.counts.wal_objects = examined.objects;
    state.counts.wal_read = examined.read;
    Ok(())
}
