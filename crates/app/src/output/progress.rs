//! Progress on a terminal: a bar with an estimate; elsewhere a plain line every few seconds.

use super::Printer;
use indicatif::{ProgressBar, ProgressStyle};
use retoma_core::units::{ByteSize, counted, span};
use retoma_repo::backup::Progress;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(10);

/// Shows a [`Progress`] until it is dropped.
#[derive(Debug)]
pub(crate) struct Display {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts to show `progress` under the name of what is being done.
    pub(crate) fn start(printer: Printer, doing: &str, progress: &Arc<Progress>) -> Self {
        Self::counting(printer, doing, progress, ("file", "files"))
    }

    /// As [`Display::start`], for what counts other things than files.
    pub(crate) fn counting(
        printer: Printer,
        doing: &str,
        progress: &Arc<Progress>,
        (one, many): (&'static str, &'static str),
    ) -> Self {
        if printer.quiet || printer.json {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = sync_channel::<()>(1);
        let (progress, doing) = (Arc::clone(progress), doing.to_owned());
        let terminal = std::io::stderr().is_terminal();
        let show = move || {
            let bar = if terminal { bar(&doing) } else { ProgressBar::hidden() };
            let (start, mut said) = (Instant::now(), Instant::now());
            while stopped.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                let ((files, bytes), (_, total)) = (progress.done(), progress.total());
                if total > 0 && bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(style(true));
                }
                bar.set_position(bytes);
                bar.set_message(counted(files, one, many));
                if !terminal && said.elapsed() > LINE {
                    said = Instant::now();
                    let files = counted(files, one, many);
                    printer.note(&format!("{doing}: {files}, {}", far(bytes, total, start.elapsed())));
                }
            }
            bar.finish_and_clear();
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// How far it is: bytes, time, and what is left of both where the whole is known, by what was done until now.
fn far(bytes: u64, total_bytes: u64, elapsed: Duration) -> String {
    let whole_seconds = |time: Duration| span(Duration::from_secs(time.as_secs()));
    let (done, took) = (ByteSize(bytes), whole_seconds(elapsed));
    if total_bytes == 0 {
        return format!("{done}, {took}");
    }
    let text = format!("{done} of {}, {took}", ByteSize(total_bytes));
    let left = u128::from(total_bytes.saturating_sub(bytes));
    match (elapsed.as_millis() * left).checked_div(u128::from(bytes)) {
        Some(millis) => {
            let left = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            format!("{text}, about {} left", whole_seconds(left))
        }
        None => text,
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total {
        "{prefix} {bar:24} {bytes} of {total_bytes}, {msg}, {binary_bytes_per_sec}, {eta} left"
    } else {
        "{prefix} {spinner} {bytes}, {msg}, {binary_bytes_per_sec}, {elapsed}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn bar(doing: &str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_style(style(false));
    bar.set_prefix(doing.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_was_done() {
        let seconds = Duration::from_secs;
        assert_eq!(far(2048, 0, seconds(10)), "2.0 KiB, 10 s");
        assert_eq!(far(0, 4096, seconds(10)), "0 B of 4.0 KiB, 10 s", "no throughput is known yet");
        assert_eq!(far(1024, 4096, seconds(10)), "1.0 KiB of 4.0 KiB, 10 s, about 30 s left");
        assert_eq!(far(4096, 4096, seconds(10)), "4.0 KiB of 4.0 KiB, 10 s, about 0 s left");
        // Files that were there already can make it more than the whole.
        assert_eq!(far(5000, 4096, seconds(10)), "4.9 KiB of 4.0 KiB, 10 s, about 0 s left");
        let far = far(1, u64::MAX, seconds(3600));
        assert!(far.ends_with(" left"), "{far}");
    }
}
